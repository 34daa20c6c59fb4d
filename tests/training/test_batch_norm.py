from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import get_context

import torch
from torch import distributed, nn

from segmodels.training import batch_norm
from segmodels.training.batch_norm import SynchronisedBatchNorm2d, synchronise
from tests.support.serving import PATIENCE


def normalised(rank, file):
    """One of two processes: 3 of 4 samples or 1 of them, forward, backward and running means."""
    team = {"rank": rank, "world_size": 2, "timeout": timedelta(seconds=PATIENCE)}
    distributed.init_process_group("gloo", init_method=f"file://{file}", **team)
    try:
        layer, x, weight = example()
        network = nn.Sequential(layer)
        synchronise(network)
        part = slice(0, 3) if rank == 0 else slice(3, 4)
        return pass_through(network[0], x[part], weight[part])
    finally:
        distributed.destroy_process_group()


def example():
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(5)
    nn.init.normal_(layer.weight)
    return layer, 3 * torch.randn(4, 5, 6, 7) + 2, torch.randn(4, 5, 6, 7)


def pass_through(layer, x, weight):
    """Output, gradients and statistics of a step whose loss is the sum of weight * output."""
    x = x.clone().requires_grad_()
    y = layer(x)
    (y * weight).sum().backward()
    return {
        "y": y.detach(),
        "dx": x.grad,
        "dw": layer.weight.grad,
        "db": layer.bias.grad,
        "mean": layer.running_mean,
        "var": layer.running_var,
        "count": layer.num_batches_tracked,
    }


def test_over_two_processes_it_is_pytorchs_over_the_whole_batch(tmp_path):
    expected = pass_through(*example())
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        other = pool.submit(normalised, 1, tmp_path / "meet")
        first, second = normalised(0, tmp_path / "meet"), other.result()
    for name in ("y", "dx"):  # of each process its own samples
        both = torch.cat([first[name], second[name]])
        torch.testing.assert_close(both, expected[name], rtol=1e-4, atol=1e-5)
    for name in ("dw", "db"):  # each its own pixels' part, which the trainer sums
        torch.testing.assert_close(first[name] + second[name], expected[name], rtol=1e-4, atol=1e-4)
    for name in ("mean", "var", "count"):
        torch.testing.assert_close(first[name], expected[name])
        torch.testing.assert_close(second[name], expected[name])


def test_alone_it_is_pytorchs_too():
    layer, x, weight = example()
    expected = pass_through(layer, x, weight)
    layer, *_ = example()
    layer.__class__ = SynchronisedBatchNorm2d
    for name, value in pass_through(layer, x, weight).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-4)
    layer.eval()
    assert torch.equal(
        layer(x),
        nn.functional.batch_norm(
            x, layer.running_mean, layer.running_var, layer.weight, layer.bias
        ),
    )


def test_it_keeps_the_precision_of_its_input():
    layer, x, _ = example()
    layer.__class__ = SynchronisedBatchNorm2d
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    assert layer.running_mean.dtype == torch.float32


def test_a_process_alone_keeps_its_batch_norms():
    network = nn.Sequential(nn.BatchNorm2d(2))
    synchronise(network)
    assert type(network[0]) is nn.BatchNorm2d
    assert batch_norm.batch_norms(network) == [network[0]]
