"""Dropout that stays on, for the Monte Carlo samples of Bayesian SegNet (section 3)."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

_generator: ContextVar[torch.Generator | None] = ContextVar("generator", default=None)


class SampledDropout(nn.Module):
    """Dropout in evaluation mode too, its masks from the generator of `repeatable_draws`."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, values: Tensor) -> Tensor:
        kept = torch.empty_like(values).bernoulli_(1 - self.rate, generator=_generator.get())
        return values * kept / (1 - self.rate) if self.rate < 1 else values * kept


@contextmanager
def repeatable_draws(device: torch.device) -> Iterator[None]:
    """In here, in this thread, masks are drawn from PyTorch's initial seed (`torch.manual_seed`):
    the same every time, whatever other threads draw."""
    generator = torch.Generator(device).manual_seed(torch.initial_seed())
    token = _generator.set(generator)
    try:
        yield
    finally:
        _generator.reset(token)


def with_dropout_on(network: nn.Module) -> nn.Module:
    """A second network on the same weights whose dropout stays on."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    sampling = copy.deepcopy(network, shared)
    for parent in list(sampling.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Dropout):
                setattr(parent, name, SampledDropout(layer.p))
    return sampling
