"""Monte Carlo dropout, as in Bayesian SegNet (section 3)."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

_generator: ContextVar[torch.Generator | None] = ContextVar("generator", default=None)


class SampledDropout(nn.Module):
    """Dropout that is active in evaluation mode too, with the generator of `repeatable_draws`."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, values: Tensor) -> Tensor:
        kept = torch.empty_like(values).bernoulli_(1 - self.rate, generator=_generator.get())
        return values * kept / (1 - self.rate) if self.rate < 1 else values * kept


@contextmanager
def repeatable_draws(device: torch.device) -> Iterator[None]:
    """Within the context and this thread, draw dropout masks with a generator seeded by
    `torch.initial_seed()`: the same masks every time, independent of other threads."""
    generator = torch.Generator(device).manual_seed(torch.initial_seed())
    token = _generator.set(generator)
    try:
        yield
    finally:
        _generator.reset(token)


def with_dropout_on(network: nn.Module) -> nn.Module:
    """A copy with active dropout that shares the network's weights."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    sampling = copy.deepcopy(network, shared)
    for parent in list(sampling.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Dropout):
                setattr(parent, name, SampledDropout(layer.p))
    return sampling
