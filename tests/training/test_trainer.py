import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from segmodels import UNet
from segmodels.data.dataset import DataError, open_data
from segmodels.models.layers.winograd import WinogradConv2d
from segmodels.models.vgg16 import encoder_layers
from segmodels.training.batch_norm import batch_norms, recompute
from segmodels.training.config import TrainingConfig, TrainingError
from segmodels.training.dataloader import batch_order
from segmodels.training.losses import lovasz_softmax
from tests.support.datasets import write_camvid
from tests.support.trainings import tiny_trainer, trainer_for


def state_of(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


# ---- data ----


def test_a_class_without_a_training_pixel_weighs_nothing_and_is_named(camvid, capsys):
    for sample in open_data(camvid, "train").samples:
        ids = np.array(Image.open(sample.label))
        Image.fromarray(np.where(ids == 1, 0, ids).astype(np.uint8)).save(sample.label)
    trainer = tiny_trainer(camvid)
    assert "warning: no label of 'train' contains wall, which" in capsys.readouterr().err
    assert trainer.class_weights[1] == 0
    assert (trainer.class_weights[[0, 2]] > 0).all()
    assert np.isfinite(trainer.take_step(*next(trainer.batches(0))))


def test_labels_that_are_all_void_are_refused(camvid):
    for sample in open_data(camvid, "train").samples:
        Image.fromarray(np.full((40, 48), 255, np.uint8)).save(sample.label)
    with pytest.raises(DataError, match=r"all labels, starting with .*000.png, contain only void"):
        tiny_trainer(camvid)


def test_what_is_probably_wrong_is_told_before_a_step_is_taken(camvid, capsys):
    (camvid / "train" / "Thumbs.db").write_bytes(b"")
    for split in ("train", "val"):
        for sample in open_data(camvid, split).samples:
            ids = np.array(Image.open(sample.label))
            Image.fromarray(np.where(ids == 1, 255, 0).astype(np.uint8)).save(sample.label)
    tiny_trainer(camvid)
    printed = capsys.readouterr().err
    assert "segmodels: warning: the labels contain only 0 and 255, but classes.txt has 3" in printed
    assert "segmodels: warning: all pixels of 'train' are 'ground' or void" in printed
    assert "train: ignored 1 file not in an image format (Thumbs.db)" in printed


def test_labels_that_are_all_void_tell_the_likely_cause(camvid):
    (camvid / "classes.txt").write_text("ground\n")
    for split in ("train", "val"):
        for sample in open_data(camvid, split).samples:
            Image.fromarray(np.full((40, 48), 1, np.uint8)).save(sample.label)
    with pytest.raises(DataError, match=r"only void pixels\n  warning: .* probably binary masks"):
        tiny_trainer(camvid)


def test_the_errors_of_all_splits_are_told_together_before_a_step_is_taken(camvid):
    (camvid / "valannot" / "001.png").unlink()
    (camvid / "train" / "002.png").write_bytes(b"cut off")
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(camvid / "trainannot" / "004.png")
    with pytest.raises(DataError) as caught:
        tiny_trainer(camvid)
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 errors:"
    for line, words in zip(lines[1:], ("002.png", "10 x 10 pixels", "no label"), strict=True):
        assert words in line


def test_a_batch_is_no_larger_than_the_dataset(camvid, capsys):
    trainer = tiny_trainer(camvid, batch_size=7)
    assert (trainer.config.batch_size, trainer.steps_per_epoch) == (6, 1)
    assert "batches of 6 instead of 7" in capsys.readouterr().err


# ---- steps ----


def test_the_schedule_sets_the_learning_rates(camvid):
    trainer = tiny_trainer(camvid)
    trainer.step = 4
    trainer.take_step(*next(trainer.batches(0)))
    factor = trainer.rate_factors[4]
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {0.01 * factor}


def test_the_loss_is_the_weighted_cross_entropy(camvid):
    trainer = tiny_trainer(camvid)
    captured = []
    trainer.model.register_forward_hook(lambda *arguments: captured.append(arguments[2].detach()))
    pixels, target = next(trainer.batches(0))
    loss = trainer.take_step(pixels, target)
    logits = captured[0].double().numpy()
    log_sum = np.log(np.exp(logits).sum(1))
    weights = trainer.class_weights.double().numpy()
    total = norm = 0.0
    for n, y, x in np.ndindex(*target.shape):
        class_id = int(target[n, y, x])
        if class_id != 255:
            total += weights[class_id] * (log_sum[n, y, x] - logits[n, class_id, y, x])
            norm += weights[class_id]
    assert loss == pytest.approx(total / norm, rel=1e-5)
    assert trainer.mean_loss == loss


def test_steps_bring_the_loss_down(camvid):
    trainer = tiny_trainer(camvid, epochs=8, base_channels=4, warmup_steps=1)
    batch = next(trainer.batches(0))
    losses = [trainer.take_step(*batch) for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]


def test_a_loss_that_is_not_finite_ends_the_training(camvid):
    trainer = tiny_trainer(camvid)
    pixels, target = next(trainer.batches(0))
    position = trainer.data, trainer.config, 0
    before = [p.clone() for p in trainer.model.parameters()]
    names = [trainer.data.samples[i].image.name for i in batch_order(*position)[0]]
    message = (
        rf"the loss became nan at step 0 \(epoch 1, .* {', '.join(names)}\); .* lower learning"
    )
    with pytest.raises(TrainingError, match=message):
        trainer.take_step(pixels * float("nan"), target)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))


def test_a_gradient_that_is_not_finite_changes_no_weight(camvid):
    trainer = tiny_trainer(camvid)
    trainer.model.heatmaps.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = [p.clone() for p in trainer.model.parameters()]
    with pytest.raises(TrainingError, match=r"the gradient's norm became (nan|inf) at step 0"):
        trainer.take_step(*next(trainer.batches(0)))
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))


def test_a_batch_that_is_all_void_teaches_nothing(camvid):
    trainer = tiny_trainer(camvid)
    pixels, target = next(trainer.batches(0))
    before = state_of(trainer)
    assert trainer.take_step(pixels, torch.full_like(target, 255)) == 0
    assert trainer.step == 1
    assert all(torch.equal(before[name], now) for name, now in trainer.model.state_dict().items())


@pytest.mark.parametrize("crop", [(32, 32), (64, 64)])
def test_tiny_crops_of_an_fcn_do_not_train_on_memory_that_nobody_wrote(camvid, crop):
    config = TrainingConfig("fcn", str(camvid), crop=crop, head_channels=32, batch_size=2)
    trainer = trainer_for(config)
    batch = next(trainer.batches(0))
    for size in (10**3, 10**4, 10**5, 10**6, 4 * 10**6):  # what free memory may hold
        torch.full((size,), float("inf"))
    assert trainer.take_step(*batch) == pytest.approx(np.log(3), rel=1e-5)  # scores begin at 0


@pytest.mark.parametrize(
    ("crop", "precision", "dtype"),
    [
        ((64, 80), "bf16", torch.float32),
        ((72, 72), "bf16", torch.bfloat16),
        ((72, 72), "fp32", torch.float32),
    ],
)
def test_crops_of_more_than_64_pixels_are_computed_in_the_configs_precision(
    camvid, crop, precision, dtype
):
    trainer = tiny_trainer(camvid, crop=crop, precision=precision)
    seen = []
    trainer.model.heatmaps.register_forward_hook(lambda *arguments: seen.append(arguments[2].dtype))
    trainer.take_step(*next(trainer.batches(0)))
    assert seen == [dtype]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_in_float32_on_the_cpu_wide_convolutions_take_fewer_multiplications(camvid, precision):
    trainer = tiny_trainer(camvid, base_channels=16, batch_size=2, precision=precision)
    fast = [layer for layer in trainer.model.modules() if isinstance(layer, WinogradConv2d)]
    assert bool(fast) == (precision == "fp32")
    assert all(np.isfinite(trainer.take_step(*batch)) for batch in trainer.batches(0))


def test_border_weights_change_the_loss(camvid):
    plain, weighted = tiny_trainer(camvid), tiny_trainer(camvid, border_weight=10.0)
    pixels, target, border = next(weighted.batches(0))
    assert border.shape == target.shape
    assert border.max() > 5  # sky meets ground somewhere in the crop
    own, bordered = plain.take_step(pixels, target), weighted.take_step(pixels, target, border)
    assert np.isfinite(bordered)
    assert bordered != own


def test_lovasz_softmax_is_added_to_the_loss(camvid):
    plain, both = tiny_trainer(camvid), tiny_trainer(camvid, lovasz=2.0)
    pixels, target = next(both.batches(0))
    with torch.no_grad():
        both.model.train()
        logits = both.model(both._normalised(pixels))
    expected = plain.take_step(pixels, target) + 2 * float(lovasz_softmax(logits, target))
    assert both.take_step(pixels, target) == pytest.approx(expected, rel=1e-4)


def test_the_moving_average_is_the_formulas(camvid):
    trainer = tiny_trainer(camvid, ema=0.8)
    batches = list(trainer.batches(0))
    trainer.take_step(*batches[0])
    average = state_of(trainer)  # it begins as the weights after the first step
    for batch in batches[1:]:
        trainer.take_step(*batch)
        for name, now in trainer.model.state_dict().items():
            if now.is_floating_point():
                average[name] = 0.8 * average[name] + 0.2 * now
    assert trainer.result is not trainer.model
    for name, tensor in trainer.result.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, average[name])
    moved = trainer.result.heatmaps.weight - trainer.model.heatmaps.weight
    assert moved.abs().max() > 1e-4


# ---- frozen layers ----


def test_frozen_layers_stay_as_they_are(camvid, vgg16_file):
    config = TrainingConfig("segnet", str(camvid), vgg16=vgg16_file, batch_size=2, crop=(32, 32))
    trainer = trainer_for(config)
    before = state_of(trainer)
    trainer.take_step(*next(trainer.batches(0)))
    changed = {
        k for k, now in trainer.model.state_dict().items() if not torch.equal(before[k], now)
    }
    fixed = {f"encoders.{block}" for block in (0, 1)}  # conv1_1 to conv2_2, running means too
    assert not any(name.startswith(tuple(fixed)) for name in changed)
    assert "encoders.2.conv3_1.conv.weight" in changed
    assert "encoders.2.conv3_1.bn.running_mean" in changed
    assert len(encoder_layers(trainer.model, 4)) == 8


# ---- batch norms ----


def test_recomputed_batch_norms_are_the_statistics_of_training_batches(camvid):
    trainer = tiny_trainer(camvid, batch_size=3, epochs=2, half_size_epochs=2)
    trainer.take_step(*next(trainer.batches(0)))
    layers = {n: m for n, m in trainer.model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    seen = {name: [] for name in layers}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(
            lambda _, inputs, name=name: seen[name].append(inputs[0].double().numpy())
        )
    trainer.recompute_batch_norms()
    assert len(layers) == 18  # two a level, five levels down and four up
    for name, layer in layers.items():
        assert [x.shape[0] for x in seen[name]] == [3, 3]  # 6 images
        means = [x.mean((0, 2, 3)) for x in seen[name]]
        variances = [x.var((0, 2, 3), ddof=1) for x in seen[name]]
        np.testing.assert_allclose(layer.running_mean, np.mean(means, 0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layer.running_var, np.mean(variances, 0), rtol=1e-4, atol=1e-5)
        assert not layer.training
    assert seen["encoder1.1"][0].shape[2:] == trainer.config.crop  # in full size at the end


def test_a_variance_holds_what_images_differ_by(camvid):
    """Of one dark and one light picture, each of a single grey: 0 within, but not between."""
    trainer = tiny_trainer(camvid, batch_size=2)
    layer = nn.BatchNorm2d(1)
    batch = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 1, 4, 4)
    recompute(trainer.model, [layer], [batch], layer)
    # Of 16 zeros and 16 ones: 32 / 31 / 4.
    torch.testing.assert_close(layer.running_var, torch.tensor([8 / 31]))


def test_of_a_moving_average_the_batch_norms_are_recomputed(camvid, vgg16_file):
    options = {"vgg16": vgg16_file, "ema": 0.9, "frozen": 2}
    config = TrainingConfig("segnet", str(camvid), batch_size=2, crop=(32, 32), **options)
    trainer = trainer_for(config)
    before = state_of(trainer)
    trainer.recompute_batch_norms(batches=1)
    after = trainer.result.state_dict()
    changed = {
        name for name in after if "running_mean" in name and (after[name] != before[name]).any()
    }
    assert not any(name.startswith("encoders.0") for name in changed)  # frozen
    assert {"encoders.1.conv2_1.bn.running_mean", "decoders.4.conv1_2_d.bn.running_mean"} <= changed


def test_frozen_batch_norms_keep_the_statistics_of_start_and_learn_scale_and_shift(
    camvid, tmp_path
):
    start = tmp_path / "start"
    network = UNet(class_names=open_data(camvid, "train").class_names, base_channels=2)
    for layer in batch_norms(network):
        nn.init.constant_(layer.running_mean, 0.25)
    network.save_pretrained(start)
    options = {"start": str(start), "freeze_batch_norm": True, "ema": 0.5}
    trainer = tiny_trainer(camvid, base_channels=None, warmup_steps=0, **options)
    trainer.take_step(*next(trainer.batches(0)))
    trainer.recompute_batch_norms(batches=2)
    for model in (trainer.model, trainer.result):
        for layer in batch_norms(model):
            assert (layer.running_mean == 0.25).all()
            assert (layer.running_var == 1).all()
            assert (layer.weight != 1).any()
            assert (layer.bias != 0).any()


def test_recomputed_batch_norms_see_as_many_batches_as_asked_for(camvid):
    trainer = tiny_trainer(camvid, batch_size=2)
    trainer.recompute_batch_norms(batches=2)
    assert int(trainer.model.encoder1[1].num_batches_tracked) == 2


# ---- validation ----


def test_validation_is_skipped_without_a_val_split(tmp_path):
    trainer = tiny_trainer(write_camvid(tmp_path / "d", train=6))
    assert trainer.validate() == {}


def test_a_val_split_that_is_broken_is_refused_before_training(camvid):
    (camvid / "valannot" / "001.png").unlink()
    with pytest.raises(DataError, match=r"001 has no label in .*valannot"):
        tiny_trainer(camvid)


def test_validation_leaves_the_network_in_training(camvid):
    trainer = tiny_trainer(camvid)
    before = state_of(trainer)
    metrics = trainer.validate(quiet=True)
    names = ["mean_iou", "mean_dice", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"]
    assert list(metrics) == [f"val_{name}" for name in ("loss", *names, "iou")]
    assert set(metrics.pop("val_iou")) == {"ground", "wall", "sky"}
    assert metrics.pop("val_loss") > 0
    assert all(0 <= value <= 1 for value in metrics.values())
    assert all(torch.equal(before[name], now) for name, now in trainer.model.state_dict().items())
    assert trainer.take_step(*next(trainer.batches(0))) > 0


# ---- fp16's scaled gradients ----


@pytest.fixture
def scaled_trainer(camvid):
    """With the scaler of fp16, on the CPU and in float32."""
    trainer = tiny_trainer(camvid)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    return trainer


def test_scaled_gradients_make_the_same_step(camvid, scaled_trainer):
    plain = tiny_trainer(camvid)
    batch = next(plain.batches(0))
    assert scaled_trainer.take_step(*batch) == plain.take_step(*batch)
    for name, tensor in plain.model.state_dict().items():
        torch.testing.assert_close(scaled_trainer.model.state_dict()[name], tensor, msg=name)


def test_a_gradient_that_overflows_costs_a_step_and_halves_the_scale(scaled_trainer):
    trainer = scaled_trainer
    trainer.model.heatmaps.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = [p.clone() for p in trainer.model.parameters()]
    assert trainer.take_step(*next(trainer.batches(0))) > 0
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    assert trainer.accelerator.scaler.get_scale() == 2.0**11
    assert trainer.step == 1


def test_gradients_that_overflow_whatever_the_scale_end_the_training(scaled_trainer):
    scaled_trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**-10)
    scaled_trainer.model.heatmaps.weight.register_hook(lambda g: g * float("inf"))
    with pytest.raises(TrainingError, match="the gradient's norm in fp16 became inf at step 0"):
        scaled_trainer.take_step(*next(scaled_trainer.batches(0)))


def test_the_scale_is_part_of_the_state(camvid, scaled_trainer):
    scaled_trainer.take_step(*next(scaled_trainer.batches(0)))
    scaled_trainer.accelerator.scaler.update(2.0**5)
    state = scaled_trainer.state()
    other = tiny_trainer(camvid)
    other.accelerator.scaler = torch.amp.GradScaler("cpu")
    other.restore(state)
    assert other.accelerator.scaler.get_scale() == 2.0**5
