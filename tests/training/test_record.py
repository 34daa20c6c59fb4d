import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from segmodels.hub.filenames import START_TRAINING
from segmodels.training.config import TrainingConfig, TrainingError
from segmodels.training.model_factory import CarriedOver
from segmodels.training.record import check_same, config_of, fetch_record, read_config, write_record

CARDS = Path(__file__).parents[2] / "weights_card"


def test_records_of_earlier_versions_mean_what_they_meant():
    old = json.loads((CARDS / "unet-camvid" / "training.json").read_text())
    while START_TRAINING in old:
        old = old[START_TRAINING]  # in the end the first stage, from before these options
    assert not {"schedule", "ema", "degrade", "color_strength"} & set(old)
    config = config_of(old)
    assert (config.schedule, config.precision, config.color_strength) == ("poly", "bf16", 1.0)
    absent = (config.ema, config.degrade, config.elastic, config.border_weight, config.lovasz)
    assert not any(absent)


@pytest.mark.parametrize("name", ["fcn-camvid", "fcn-msrc"])
def test_records_of_fcns_say_at_which_rates_their_skips_learnt(name):
    record = json.loads((CARDS / name / "training.json").read_text())
    while START_TRAINING in record:
        assert "skip_rates" in record
        record = record[START_TRAINING]
    assert record["skip_rates"] == [1.0, 1.0]  # before there was a choice


def test_options_of_other_networks_in_early_records_say_nothing():
    early = {"network": "unet", "data": "d", "stride": 8, "head_channels": 512, "variant": "vgg16"}
    early |= {"base_channels": 32, "dropout": None}
    config = config_of(early)
    assert (config.stride, config.variant, config.base_channels) == (None, None, 32)
    assert config_of(early | {"start": "org/unet"}).base_channels is None


def test_a_record_tells_what_was_carried_over_and_is_read_again(tmp_path):
    config = TrainingConfig("unet", "d", start="org/unet", epochs=2)
    carried_over = CarriedOver(["a"], ["b"], [], ["encoder1.0.weight"])
    write_record(tmp_path, config, {"network": "unet"}, carried_over)
    record = fetch_record(str(tmp_path))
    assert record["carried_over"] == asdict(carried_over)
    assert record[START_TRAINING] == {"network": "unet"}
    assert read_config(tmp_path) == config


def test_other_options_are_named_and_a_longer_training_is_not_another():
    config = TrainingConfig("unet", "d", epochs=3, batch_size=2)
    check_same(config, replace(config, epochs=5, patience=3), "it is of")
    check_same(config, replace(config, batch_size=None), "it is of")
    with pytest.raises(TrainingError, match=r"^it is of .* \(epochs 3, now 2\): use the"):
        check_same(config, replace(config, epochs=2), "it is of")
    with pytest.raises(TrainingError, match=r"\(seed 0, now 1\).*restart with a new --out"):
        check_same(config, replace(config, seed=1), "it is of")
