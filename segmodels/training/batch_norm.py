"""Synchronised batch normalisation, and recomputation of its statistics after training."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, distributed, nn

from segmodels.utils.distributed import process_count, summed


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation with training statistics over the batches of all processes.

    In contrast to `nn.SyncBatchNorm`, it works on CPUs and is a subclass of `nn.BatchNorm2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, C, h, w); n can differ between processes."""
        if not self.training:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            values = x.float()
            count = summed(values.new_tensor([values.numel() / values.shape[1]]))
            mean = _GlobalSum.apply(values.sum((0, 2, 3))) / count
            centred = values - mean[:, None, None]
            variance = _GlobalSum.apply(centred.square().sum((0, 2, 3))) / count
            self._track(mean.detach(), variance.detach() * count / (count - 1))
            scale = self.weight * (variance + self.eps).rsqrt()
            return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class _GlobalSum(torch.autograd.Function):
    """Sum over the processes; gradients are summed as well, since the loss is a sum."""

    @staticmethod
    def forward(_: object, values: Tensor) -> Tensor:
        return summed(values)

    @staticmethod
    def backward(_: object, gradient: Tensor) -> Tensor:
        return summed(gradient.contiguous())


def batch_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]


def synchronise(model: nn.Module) -> None:
    """Convert the batch norms in place to synchronised ones; parameters and names do not change."""
    if process_count() > 1 and distributed.is_initialized():
        for layer in batch_norms(model):
            layer.__class__ = SynchronisedBatchNorm2d


@torch.no_grad()
def recompute(
    model: nn.Module,
    layers: Iterable[nn.BatchNorm2d],
    batches: Iterable[Tensor],
    forward: Callable[[Tensor], object],
) -> None:
    """Replace running statistics by those of the given batches (SegNet, section 4.1).

    The statistics are the averages of the batch means and of the (unbiased) batch variances. The
    model is left in evaluation mode.

    Args:
        model: The network.
        layers: Its batch norms to recompute.
        batches: Images (N, C, h, w).
        forward: Runs the network on a batch.
    """
    layers = list(layers)
    if not layers:
        return
    model.eval()
    for layer in layers:
        layer.__class__ = nn.BatchNorm2d  # not synchronised: all processes have the same batches
        layer.reset_running_stats()
        layer.momentum = None  # cumulative average
        layer.train()
    for batch in batches:
        forward(batch)
    model.eval()
