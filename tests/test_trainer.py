import numpy as np
import pytest
import torch
from conftest import write_camvid
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from segmodels import trainer as trainer_module
from segmodels.data import DataError, open_data
from segmodels.recipe import Recipe
from segmodels.trainer import AugmentedData, Trainer, TrainingError, class_weights
from segmodels.vgg16 import LAYERS, encoder_layers

CPU = torch.device("cpu")


def recipe_for(folder, **options):
    tiny = {"epochs": 3, "batch_size": 2, "crop": (32, 32), "base_channels": 2, "warmup_steps": 2}
    return Recipe("unet", str(folder), **{**tiny, "decoder_lr": 0.01, **options})


def tiny_trainer(folder, **options):
    return Trainer(recipe_for(folder, **options), open_data(folder, "train"), CPU)


def state_of(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


@pytest.fixture(scope="module")
def vgg16_file(tmp_path_factory):
    """Weights of VGG16's shape with nothing learnt in them."""
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    tensors = {}
    torch.manual_seed(0)
    for name, before, after in zip(LAYERS, widths[:-1], widths[1:], strict=True):
        scale = (2 / (9 * before)) ** 0.5
        tensors[f"{name}.weight"] = (scale * torch.randn(after, before, 3, 3)).half()
        tensors[f"{name}.bias"] = torch.zeros(after).half()
    path = tmp_path_factory.mktemp("vgg16") / "vgg16.safetensors"
    save_file(tensors, path)
    return str(path)


# ---- class weights ----


def test_class_weights_by_hand(tmp_path):
    data = open_data(write_camvid(tmp_path / "d", train=1), "train")
    ids = np.repeat(np.uint8([0, 0, 1, 1, 1, 1, 1, 2]), 5)[:, None].repeat(48, 1)
    Image.fromarray(ids).save(data.samples[0].label)
    # Frequencies 2/8, 5/8, 1/8, their median 2/8: 1, 2/5 and 2; at exponent 1/2 their roots.
    np.testing.assert_allclose(class_weights(data, 1.0), [1, 0.4, 2], rtol=1e-6)
    np.testing.assert_allclose(class_weights(data, 0.5), np.sqrt([1, 0.4, 2]), rtol=1e-6)
    assert class_weights(data, 0.0).tolist() == [1, 1, 1]


def test_a_class_without_a_training_pixel_weighs_nothing_and_is_named(camvid):
    data = open_data(camvid, "train")
    for sample in data.samples:
        ids = np.array(Image.open(sample.label))
        Image.fromarray(np.where(ids == 1, 0, ids).astype(np.uint8)).save(sample.label)
    with pytest.warns(UserWarning, match="no training label has a pixel of wall "):
        trainer = tiny_trainer(camvid)
    assert trainer.class_weights[1] == 0
    assert (trainer.class_weights[[0, 2]] > 0).all()
    assert np.isfinite(trainer.take_step(*next(trainer.batches(0))))


def test_labels_that_are_all_void_are_refused(camvid):
    for sample in open_data(camvid, "train").samples:
        Image.fromarray(np.full((40, 48), 255, np.uint8)).save(sample.label)
    with pytest.raises(DataError, match=r"no label has a pixel that is not void, .*000.png on"):
        tiny_trainer(camvid)


# ---- batches ----


def test_every_epoch_sees_every_picture_once_in_its_own_order(camvid, monkeypatch):
    monkeypatch.setattr(AugmentedData, "__getitem__", lambda self, index: (self.epoch, index))
    trainer = tiny_trainer(camvid)
    seen = []
    for epoch in range(3):
        trainer.step = 3 * epoch
        batches = list(trainer.batches(0))
        assert all((numbers == epoch).all() for numbers, _ in batches)
        seen.append(torch.cat([indices for _, indices in batches]).tolist())
    assert all(sorted(order) == [0, 1, 2, 3, 4, 5] for order in seen)
    assert len({tuple(order) for order in seen}) > 1
    trainer.step = 4  # the second batch of the second epoch
    rest = torch.cat([indices for _, indices in trainer.batches(0)]).tolist()
    assert rest == seen[1][2:]


def test_half_size_epochs_halve_pictures_and_crops(camvid, monkeypatch):
    calls = []

    def spy(picture, target, *, crop, zoom):
        calls.append((picture.shape, target.shape, crop, zoom))
        return augment(picture, target, crop=crop, zoom=zoom)

    augment = trainer_module.augment
    monkeypatch.setattr(trainer_module, "augment", spy)
    trainer = tiny_trainer(camvid, half_size_epochs=1, working_size=36)
    shapes = []
    for trainer.step in (0, 3):
        pixels, target = next(trainer.batches(0))
        shapes.append((tuple(pixels.shape), tuple(target.shape)))
    # 48 x 40 at a working size of 36 is 36 x 30, at half of that 18 x 15.
    assert calls[0] == ((15, 18, 3), (15, 18), (16, 16), (0.7, 1.6))
    assert calls[2] == ((30, 36, 3), (30, 36), (32, 32), (0.7, 1.6))
    assert shapes == [((2, 3, 16, 16), (2, 16, 16)), ((2, 3, 32, 32), (2, 32, 32))]


def test_crops_depend_on_seed_epoch_and_picture_alone(camvid):
    data = open_data(camvid, "train")

    def crop(epoch=0, index=0, **options):
        torch.rand(1)  # whatever the random state is, which stays as it is
        before = torch.get_rng_state()
        pixels, _ = AugmentedData(data, recipe_for(camvid, **options), epoch)[index]
        assert torch.equal(torch.get_rng_state(), before)
        return pixels

    assert torch.equal(crop(), crop())
    for other in (crop(epoch=1), crop(index=1), crop(seed=1)):
        assert not torch.equal(crop(), other)


def test_worker_processes_give_the_same_batches(camvid):
    trainer = tiny_trainer(camvid)
    for own, theirs in zip(trainer.batches(0), trainer.batches(1), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(own, theirs, strict=True))


def test_fewer_pictures_than_a_batch_are_refused(camvid):
    with pytest.raises(TrainingError, match="6 training pictures are fewer than a batch of 7: ch"):
        tiny_trainer(camvid, batch_size=7)


# ---- steps ----


def test_the_schedule_by_hand(camvid):
    trainer = tiny_trainer(camvid)  # 3 epochs of 3 steps, 2 of them to warm up
    factors = []
    for trainer.step in range(9):
        factors.append(trainer.learning_rate_factor())
    # Step 0: half of the rise; step 1: (1 - 1/9)^0.9 = 0.8994; step 8: (1/9)^0.9 = 0.1384.
    assert factors[0] == 0.5
    assert factors[1] == pytest.approx(0.8994, abs=1e-4)
    assert factors[8] == pytest.approx(0.1384, abs=1e-4)
    assert factors[1:] == sorted(factors[1:], reverse=True)
    trainer.step = 4
    trainer.take_step(*next(trainer.batches(0)))
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {0.01 * factors[4]}


def test_no_warm_up_begins_at_the_peak(camvid):
    assert tiny_trainer(camvid, warmup_steps=0).learning_rate_factor() == 1


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
    before = [p.clone() for p in trainer.model.parameters()]
    with pytest.raises(TrainingError, match=r"the loss became nan at step 0; .* lower learning"):
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
    recipe = Recipe("fcn", str(camvid), crop=crop, head_channels=32, batch_size=2)
    trainer = Trainer(recipe, open_data(camvid, "train"), CPU)
    batch = next(trainer.batches(0))
    for size in (10**3, 10**4, 10**5, 10**6, 4 * 10**6):  # what free memory may hold
        torch.full((size,), float("inf"))
    assert trainer.take_step(*batch) == pytest.approx(np.log(3), rel=1e-5)  # scores begin at 0


@pytest.mark.parametrize(("crop", "dtype"), [((64, 80), torch.float32), ((72, 72), torch.bfloat16)])
def test_larger_crops_are_computed_in_bfloat16(camvid, crop, dtype):
    trainer = tiny_trainer(camvid, crop=crop)
    seen = []
    trainer.model.heatmaps.register_forward_hook(lambda *arguments: seen.append(arguments[2].dtype))
    trainer.take_step(*next(trainer.batches(0)))
    assert seen == [dtype]


# ---- parameters ----


@pytest.mark.parametrize("frozen", [0, 4])
def test_every_trainable_parameter_is_in_one_group_and_no_other(camvid, vgg16_file, frozen):
    options = {"vgg16": vgg16_file, "frozen": frozen, "encoder_lr": 0.002}
    recipe = Recipe("segnet", str(camvid), batch_size=2, crop=(32, 32), **options)
    trainer = Trainer(recipe, open_data(camvid, "train"), CPU)
    groups = trainer.optimizer.param_groups
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    grouped = [names[parameter] for group in groups for parameter in group["params"]]
    # A convolution and its batch norm have weight and bias each: 4 parameters a frozen layer.
    trainable = [name for p, name in names.items() if p.requires_grad]
    assert sorted(grouped) == sorted(trainable)
    assert len(names) - len(trainable) == 4 * frozen
    for group in groups:
        for parameter in group["params"]:
            name = names[parameter]
            is_kernel = name.endswith("conv.weight") or name == "conv1_1_d.weight"
            assert group["weight_decay"] == (1e-4 if is_kernel else 0)
            assert group["peak_lr"] == (0.002 if name.startswith("encoders") else 0.001)


def test_frozen_layers_stay_as_they_are(camvid, vgg16_file):
    recipe = Recipe("segnet", str(camvid), vgg16=vgg16_file, batch_size=2, crop=(32, 32))
    trainer = Trainer(recipe, open_data(camvid, "train"), CPU)
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


def test_recomputed_batch_norms_are_the_statistics_of_whole_pictures(camvid):
    trainer = tiny_trainer(camvid, working_size=32)
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
        assert [x.shape[0] for x in seen[name]] == [1] * 6
        means = [x.mean((0, 2, 3)) for x in seen[name]]
        variances = [x.var((0, 2, 3), ddof=1) for x in seen[name]]
        np.testing.assert_allclose(layer.running_mean, np.mean(means, 0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layer.running_var, np.mean(variances, 0), rtol=1e-4, atol=1e-5)
        assert not layer.training
    assert seen["encoder1.1"][0].shape[2:] == (27, 32)  # 48 x 40 at a longer side of 32


def test_recomputed_batch_norms_see_as_many_pictures_as_asked_for(camvid):
    trainer = tiny_trainer(camvid)
    trainer.recompute_batch_norms(pictures=2)
    assert int(trainer.model.encoder1[1].num_batches_tracked) == 2


# ---- validation ----


def test_validation_is_skipped_without_a_val_split(tmp_path):
    trainer = tiny_trainer(write_camvid(tmp_path / "d", train=6))
    assert trainer.validate() == {}


def test_a_val_split_that_is_broken_is_refused_before_training(camvid):
    (camvid / "valannot" / "001.png").unlink()
    with pytest.raises(DataError, match=r"'val', have no label: 001"):
        tiny_trainer(camvid)


def test_validation_leaves_the_network_in_training(camvid):
    trainer = tiny_trainer(camvid)
    before = state_of(trainer)
    figures = trainer.validate(quiet=True)
    names = ["mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"]
    assert list(figures) == [f"val_{name}" for name in names]
    assert all(0 <= value <= 1 for value in figures.values())
    assert all(torch.equal(before[name], now) for name, now in trainer.model.state_dict().items())
    assert trainer.take_step(*next(trainer.batches(0))) > 0
