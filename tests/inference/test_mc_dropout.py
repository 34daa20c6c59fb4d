"""Dropout for Monte Carlo samples."""

import threading

import pytest
import torch
from torch import nn

from segmodels.inference.mc_dropout import SampledDropout, seeded_dropout, with_sampled_dropout

CPU = torch.device("cpu")


def drawn(layer):
    with seeded_dropout(CPU):
        return layer(torch.ones(2, 50, 20))


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5])
def test_a_share_is_dropped_and_the_rest_scaled_so_that_the_mean_stays(rate):
    values = drawn(SampledDropout(rate).eval())
    assert values[values > 0].numpy() == pytest.approx(1 / (1 - rate))
    # 2000 draws: their mean is 1 with a standard deviation of sqrt(rate / (1 - rate) / 2000).
    assert values.mean().item() == pytest.approx(
        1, abs=5 * (rate / (1 - rate) / 2000) ** 0.5 + 1e-6
    )


def test_at_rate_one_nothing_is_left():
    assert not drawn(SampledDropout(1.0)).any()


def test_draws_are_repeated_whatever_others_draw():
    layer, found = SampledDropout(0.5), []
    torch.manual_seed(3)
    first = drawn(layer)
    other = threading.Thread(target=lambda: found.append(drawn(layer)))
    with seeded_dropout(CPU):
        torch.rand(10)
        other.start()
        other.join()
        again = layer(torch.ones(2, 50, 20))
    assert torch.equal(first, again)
    assert torch.equal(first, found[0])
    torch.manual_seed(4)
    assert not torch.equal(first, drawn(layer))


def test_draws_leave_pytorchs_own_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    drawn(SampledDropout(0.5))
    assert torch.equal(torch.rand(3), expected)


def test_the_second_network_shares_the_weights_of_the_first():
    network = nn.Sequential(
        nn.Linear(4, 4), nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.25))
    ).eval()
    sampling = with_sampled_dropout(network)
    assert sampling[0].weight is network[0].weight
    assert (sampling[1].rate, sampling[2][0].rate) == (0.5, 0.25)
    assert isinstance(network[1], nn.Dropout)
