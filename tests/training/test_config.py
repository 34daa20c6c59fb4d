import dataclasses
import json

import pytest

from segmodels.training.config import TrainingConfig, fit_to_data


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "vgg"}, "network must be one of fcn, unet, segnet, got 'vgg'"),
        ({"freeze_batch_norm": True}, "freeze_batch_norm requires start"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"epochs": 3, "half_size_epochs": 4}, "half_size_epochs must be from 0 to epochs, got 4"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        (
            {"crop": (1, 5)},
            r"crop must be \(height, width\), both at least 2, or \(0, 0\), got \(1, 5\)",
        ),
        ({"zoom": (2.0, 1.0)}, r"zoom must be \(from, to\) with 0 < from <= to"),
        ({"working_size": 1}, "working_size must be None or at least 2"),
        ({"frozen": 14}, "frozen must be from 0 to 13"),
        (
            {"skip_rates": (1, 0)},
            r"skip_rates must be two positive numbers, for pool4 and pool3, got",
        ),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"schedule": "step"}, "schedule must be one of poly, onecycle, constant, got 'step'"),
        ({"ema": 1.0}, "ema must be at least 0 and less than 1, got 1.0"),
        ({"precision": "fp8"}, "precision must be one of fp32, bf16, fp16, got 'fp8'"),
        ({"color_strength": 3}, "color_strength must be from 0 to 2.5, got 3"),
        ({"degrade": 1.5}, "degrade must be from 0 to 1, got 1.5"),
        ({"elastic": -1}, "elastic must be 0 or more, got -1"),
        ({"border_weight": -1}, "border_weight must be 0 or more, got -1"),
        ({"border_sigma": 0}, "border_sigma must be positive, got 0"),
        ({"lovasz": -1}, "lovasz must be 0 or more, got -1"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"optimizer": "adam"}, "optimizer must be one of adamw, sgd, got 'adam'"),
        ({"momentum": 1.0}, "momentum must be at least 0 and less than 1, got 1.0"),
        ({"bias_lr_factor": 0}, "bias_lr_factor must be positive, got 0"),
        ({"rotate": 200}, "rotate must be from 0 to 180, got 200"),
        ({"val_fraction": 1.0}, "val_fraction must be at least 0 and less than 1, got 1.0"),
        ({"folds": 1, "fold": 0}, "folds must be at least 2, got 1"),
        ({"folds": 5, "fold": 5}, "fold must be from 0 to folds - 1, with folds, got 5"),
        ({"fold": 1}, "fold must be from 0 to folds - 1, with folds, got 1"),
        ({"patience": -1}, "patience must be 0 or more, got -1"),
    ],
)
def test_a_value_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**{"network": "unet", "data": "d", **options})


def test_lists_become_tuples():
    config = TrainingConfig("fcn", "d", crop=[64, 80], zoom=[1, 2], skip_rates=[3, 4])
    assert config == TrainingConfig("fcn", "d", crop=(64, 80), zoom=(1, 2), skip_rates=(3, 4))


def test_what_is_published_names_no_folder_of_the_machine(tmp_path):
    weights = tmp_path / "vgg.safetensors"
    weights.touch()
    config = TrainingConfig(
        "fcn", str(tmp_path / "somewhere" / "camvid"), vgg16=str(weights), epochs=7
    )
    published = json.loads(json.dumps(config.published()))
    assert (published["data"], published["vgg16"]) == ("camvid", "vgg.safetensors")
    assert str(tmp_path) not in json.dumps(published)
    again = TrainingConfig(**published)
    assert again.published() == published
    assert (again.epochs, again.crop) == (7, config.crop)
    assert TrainingConfig("fcn", "d", vgg16="org/vgg16").published()["vgg16"] == "org/vgg16"


def test_every_option_has_a_help_text_and_none_is_explained():
    for option in dataclasses.fields(TrainingConfig):
        assert option.metadata["help"], option.name
        if option.default is None:
            assert option.metadata["unset"], option.name


# ---- what is left to the size of the dataset ----


def test_defaults_follow_the_size_of_the_dataset():
    # 367 images in batches of 8 are 45 steps: 34 epochs make 1,530, the first past 1,500.
    config, notes = fit_to_data(TrainingConfig("unet", "d"), [(480, 360)] * 367)
    assert (config.batch_size, config.epochs, config.crop, notes) == (8, 34, (256, 320), [])
    small, _ = fit_to_data(TrainingConfig("unet", "d"), [(100, 70)] * 5)
    assert (small.batch_size, small.epochs, small.crop) == (5, 300, (64, 96))
    large, _ = fit_to_data(TrainingConfig("unet", "d"), [(480, 360)] * 8000)
    assert large.epochs == 10


def test_what_is_given_is_kept():
    given = TrainingConfig("unet", "d", epochs=3, batch_size=2, crop=(32, 48))
    assert fit_to_data(given, [(480, 360)] * 10) == (given, [])


def test_epochs_cover_the_steps_that_are_asked_for():
    config, _ = fit_to_data(TrainingConfig("unet", "d", steps=100, batch_size=4), [(64, 64)] * 16)
    assert config.epochs == 25


def test_a_batch_larger_than_the_dataset_and_a_crop_larger_than_the_images_are_said():
    config = TrainingConfig("unet", "d", batch_size=12, crop=(256, 256), working_size=200)
    fitted, notes = fit_to_data(config, [(400, 300)] * 5)
    assert fitted.batch_size == 5
    assert fitted.crop == (256, 256)
    assert "batches of 5 instead of 12" in notes[0]
    assert "larger than most images (150 x 200), which are enlarged" in notes[1]
    assert "--crop 150 200" in notes[1]
