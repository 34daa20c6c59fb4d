"""Monte Carlo dropout, as in Bayesian SegNet (section 3)."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

_generator: ContextVar[torch.Generator | None] = ContextVar("generator", default=None)


class SampledDropout(nn.Module):
    """Dropout that is also active in evaluation mode, with the generator of `seeded_dropout`."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, values: Tensor) -> Tensor:
        kept = torch.empty_like(values).bernoulli_(1 - self.rate, generator=_generator.get())
        return values * kept / (1 - self.rate) if self.rate < 1 else values * kept


@contextmanager
def seeded_dropout(device: torch.device) -> Iterator[None]:
    """In this context and thread, draw dropout masks from a generator seeded with
    `torch.initial_seed()`: the masks are reproducible and independent of other threads."""
    generator = torch.Generator(device).manual_seed(torch.initial_seed())
    token = _generator.set(generator)
    try:
        yield
    finally:
        _generator.reset(token)


def with_sampled_dropout(network: nn.Module) -> nn.Module:
    """Return a copy with `SampledDropout` layers that shares the network's weights."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    sampling = copy.deepcopy(network, shared)
    for parent in list(sampling.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Dropout):
                setattr(parent, name, SampledDropout(layer.p))
    return sampling
