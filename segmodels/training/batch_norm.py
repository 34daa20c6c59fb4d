"""Batch normalisation over the batches of several processes, and its statistics after training."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, distributed, nn

from segmodels.utils.distributed import process_count, summed


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """A batch norm whose statistics in training are those of all processes' batches together.

    torch's own, `nn.SyncBatchNorm`, works on GPUs only and is no `nn.BatchNorm2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, h, w), n of each process's own -> (n, C, h, w)."""
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
    """The sum over the processes; the loss being the sum of theirs, gradients are summed too."""

    @staticmethod
    def forward(_: object, values: Tensor) -> Tensor:
        return summed(values)

    @staticmethod
    def backward(_: object, gradient: Tensor) -> Tensor:
        return summed(gradient.contiguous())


def batch_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]


def synchronise(model: nn.Module) -> None:
    """Make the model's batch norms those of all processes, in place; parameters and names stay."""
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
    """Give the layers the statistics of the batches, in place of running means over a training
    (SegNet, section 4.1): means of the batches' means and of their (unbiased) variances. The model
    is left in evaluation mode.

    batches: (N, 3, h, w) each. forward: runs the network on one of them.
    """
    layers = list(layers)
    if not layers:
        return
    model.eval()
    for layer in layers:
        layer.__class__ = nn.BatchNorm2d  # of this process's batches alone, which all have
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over all that is seen
        layer.train()
    for batch in batches:
        forward(batch)
    model.eval()
