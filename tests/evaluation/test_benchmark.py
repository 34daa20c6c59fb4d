"""The benchmark: what it counts, in which order it measures, and what it prints."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from segmodels import FCN, Segmenter, SegNet, UNet
from segmodels.cli import benchmark as command
from segmodels.cli.main import main
from segmodels.data.dataset import open_data
from segmodels.evaluation import benchmark
from segmodels.utils.cpu import processor
from tests.support.datasets import CLASS_NAMES, write_camvid
from tests.support.serving import ROOT

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "unet-tiny"
    UNet(class_names=CLASS_NAMES, base_channels=2).save_pretrained(folder)
    return folder


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(benchmark, "CASES", {"24x16": (1, 16, 24), "2 of 24x16": (2, 16, 24)})
    monkeypatch.setattr(benchmark, "MIN_ROUNDS", 3)
    monkeypatch.setattr(benchmark, "PROBE_SIZE", (16, 24))


def test_tasks_are_interleaved_and_the_first_round_is_a_warm_up(monkeypatch):
    monkeypatch.setattr(benchmark, "MAX_ROUNDS", 4)
    order = []
    tasks = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    timings = benchmark.time_interleaved(tasks, 60, CPU)
    assert "".join(order) == "ab" * 5
    assert set(timings) == {"a", "b"}


def test_a_timing_is_the_median_and_the_interquartile_range():
    # 1 2 3 4 9: quartiles 2 and 4.
    assert benchmark.Timing.of([9, 1, 3, 2, 4]) == benchmark.Timing(3, 2)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (SegNet(class_names=CLASS_NAMES), 26),  # 13 and 13
        (UNet(class_names=CLASS_NAMES, base_channels=2), 9 * 2 + 4 + 1),  # levels, up, heat maps
        # 13 of VGG16, fc6 and fc7, three score layers, three deconvolutions
        (FCN(class_names=CLASS_NAMES, head_channels=4), 13 + 2 + 3 + 3),
    ],
)
def test_the_floor_has_every_convolution_of_the_network_once(model, expected):
    calls = benchmark.trace_convolutions(model.eval(), (1, 3, 32, 64))
    assert len(calls) == expected
    assert calls[0].shape == (1, 3, 32, 64)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert {id(call.layer) for call in calls} == {id(layer) for layer in layers}
    assert not any(layer._forward_pre_hooks for layer in layers)


def test_the_floor_computes_those_convolutions_in_its_own_arithmetic():
    model = SegNet(class_names=CLASS_NAMES, variant="basic")
    calls = benchmark.trace_convolutions(model, (1, 3, 16, 16))
    seen = []

    class Recorded(nn.Conv2d):
        def forward(self, pixels):
            seen.append((pixels.dtype, pixels.is_contiguous(memory_format=torch.channels_last)))
            return super().forward(pixels)

    for call in calls:
        call.layer.__class__ = Recorded
    benchmark.convolutions_only(calls, torch.bfloat16, torch.channels_last)()
    assert seen == [(torch.bfloat16, True)] * 9


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "a.png"
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8)).save(path)
    return path


def test_time_forward_compares_plain_execution_the_segmenter_and_the_floor(folder, image, small):
    segmenter = Segmenter(UNet.from_pretrained(folder), "cpu", "fp32")
    report = benchmark.time_forward(segmenter, image, 0, cases=("24x16",))
    assert list(report) == ["floor", "24x16"]
    tried = report["floor"]["seconds_at_480x360"]
    assert report["floor"]["in"] == min(tried, key=tried.get)
    assert {"float32 contiguous", "float32 channels_last"} <= set(tried)
    rows = report["24x16"]
    assert list(rows) == ["plain fp32", "Segmenter fp32", "floor"]
    for row in rows.values():
        assert row["over_plain"] == row["median"] / rows["plain fp32"]["median"]
        assert row["over_floor"] == row["median"] / rows["floor"]["median"]
    assert rows["Segmenter fp32"]["same_pixels"] == 1
    assert rows["plain fp32"]["same_pixels"] > 0.99


def test_other_engines_take_their_turns_and_their_class_maps_are_compared(folder, image, small):
    segmenter = Segmenter(UNet.from_pretrained(folder), "cpu", "fp32")
    order, exact = [], segmenter.model.eval()

    def wrong(pixels):
        order.append(tuple(pixels.shape))
        another = (exact(pixels).argmax(1) + 1) % exact.num_classes
        return nn.functional.one_hot(another, exact.num_classes).permute(0, 3, 1, 2)

    engines = {"exact fp32": exact, "wrong fp32": wrong}
    report = benchmark.time_forward(segmenter, image, 0, engines=engines)
    for case, shape in benchmark.CASES.items():
        rows = report[case]
        assert list(rows) == ["plain fp32", "Segmenter fp32", *engines, "floor"]
        assert rows["exact fp32"]["same_pixels"] > 0.99
        assert rows["wrong fp32"]["same_pixels"] < 0.01
        assert order.count((shape[0], 3, *shape[1:])) == 1 + 3 + 1  # first, rounds, class map


def test_every_case_stretches_the_image_to_its_size(folder, image, small):
    segmenter = Segmenter(UNet.from_pretrained(folder), "cpu", "fp32")
    decoded = benchmark.DecodedImage.read(image)
    pixels = benchmark._pixels(segmenter, decoded, (2, 15, 40))
    assert (pixels.shape, pixels.dtype) == ((2, 3, 15, 40), torch.uint8)
    # Halved in height: pixel rows 0 and 1 weigh 3/8 and 3/8 at the edge, but width is untouched.
    assert torch.equal(pixels[0], pixels[1])
    same = benchmark._pixels(segmenter, decoded, (1, 30, 40))[0].permute(1, 2, 0)
    assert np.array_equal(same.numpy(), np.array(Image.open(image)))


@pytest.mark.parametrize("pays", [True, False])
def test_the_floor_is_looked_for_in_bf16_where_that_pays(pays, small, monkeypatch):
    monkeypatch.setattr(benchmark, "bf16_is_fast", lambda: pays)
    tried = []

    def work(calls, dtype, layout):
        tried.append((dtype, layout))
        return lambda: time.sleep(0.001 if tried[-1] == (dtype, layout) else 0.01)

    monkeypatch.setattr(benchmark, "convolutions_only", work)
    floor = benchmark.find_floor(UNet(class_names=CLASS_NAMES, base_channels=2), CPU)
    assert (floor.dtype, floor.layout) == tried[-1]
    assert floor.name == ("bfloat16 channels_last" if pays else "float32 channels_last")
    layouts = [torch.contiguous_format, torch.channels_last]
    dtypes = [torch.float32, torch.bfloat16] if pays else [torch.float32]
    assert tried == [(dtype, layout) for dtype in dtypes for layout in layouts]


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_stages_are_those_of_a_call(padding, image, small, monkeypatch):
    model = UNet(class_names=CLASS_NAMES, base_channels=2, padding=padding, working_size=24)
    segmenter = Segmenter(model, "cpu", "fp32")
    drawn = []
    monkeypatch.setattr(benchmark.Segmentation, "overlay", lambda result: drawn.append(result))
    figures = benchmark.time_stages(segmenter, image, 0)
    assert figures["size"] == [40, 30]
    assert all(figures[stage]["median"] > 0 for stage in (*benchmark.STAGES, "call", "pillow"))
    rest = sum(figures[stage]["median"] for stage in ("decode", "prepare", "argmax"))
    assert figures["rest_over_forward"] == pytest.approx(rest / figures["forward"]["median"])
    expected = segmenter(image)
    assert np.array_equal(drawn[-1].class_map, expected.class_map)
    assert np.array_equal(drawn[-1].confidence, expected.confidence)


def test_the_comparison_with_plain_has_the_share_of_equal_pixels_and_both_mean_ious(
    folder, tmp_path
):
    data = write_camvid(tmp_path / "camvid", test=2)
    model = UNet.from_pretrained(folder)
    found = benchmark.compare_with_plain(Segmenter(model, "cpu", "fp32"), open_data(data, "test"))
    assert found["images"] == 2
    assert found["same_pixels"] == 1
    assert found["mean_iou"]["plain"] == found["mean_iou"]["segmenter"]


def test_peak_memory_is_what_is_taken_at_most():
    # In a separate process, as in `measure_memory`: here, memory of earlier tests may be reused.
    program = """
import numpy
import torch
from segmodels.evaluation import benchmark
print(benchmark.peak_bytes(lambda: [numpy.ones(n << 20, "u1").sum() for n in (30, 60, 10)],
                           torch.device("cpu")))
"""
    python = [sys.executable, "-c", program]
    printed = subprocess.run(python, capture_output=True, text=True, check=True).stdout
    # 60 MiB, give or take the interpreter's own.
    assert int(printed) == pytest.approx(60 << 20, abs=8 << 20)


def test_memory_is_measured_in_a_process_for_each_backend(folder):
    found = benchmark.measure_memory(str(folder), CPU, "fp32")
    assert list(found) == ["plain", "segmenter"]
    # 480 x 360 pixels of 3 channels in float32 are 2 MiB; the first level's two channels 1.3.
    assert all(size["peak"] > 2 << 20 for size in found.values())
    assert all(size["held"] >= 0 for size in found.values())


@pytest.fixture
def unmeasured(monkeypatch):
    """Memory without the processes that measure it."""
    sizes = {"plain": {"held": 5 << 20, "peak": 3 << 20}, "segmenter": None}
    monkeypatch.setattr(benchmark, "measure_memory", lambda *_: sizes)


def run(folder, image, tmp_path, *arguments):
    """`segmodels benchmark` on the CPU; what it wrote with --json."""
    path = tmp_path / "results.json"
    words = ["benchmark", "--model", folder, "--image", image, "--seconds", "0.01"]
    words += ["--json", path, "--device", "cpu", "--precision", "fp32", *arguments]
    assert main([*map(str, words)]) == 0
    return json.loads(path.read_text())


def test_the_command_prints_and_writes_everything(
    folder, image, tmp_path, small, unmeasured, capsys
):
    data = write_camvid(tmp_path / "camvid", test=1)
    report = run(folder, image, tmp_path, "--data", data)
    printed = capsys.readouterr().out
    for text in (
        f"unet-tiny on {processor().description}, ",
        "precision fp32 (torch.float32), set by --precision",
        *("24x16", "40x30", "/floor", "the fastest of those tried", "float32 channels_last 0."),
        *("5 MiB", "3 MiB", "unknown", "mean IoU"),
    ):
        assert text in printed
    assert report["machine"].startswith(processor().name)
    assert (report["precision"], report["dtype"]) == ("fp32", "float32")
    assert report["not_installed"] == []
    assert set(report["networks"]["unet-tiny"]) == {"forward", "memory", "images", "quality"}


def test_against_measures_what_is_installed_and_says_how_to_install_the_rest(
    folder, image, tmp_path, small, unmeasured, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "openvino", None)
    arguments = ["--against", "onnxruntime,openvino", "--case", "24x16"]
    report = run(folder, image, tmp_path, *arguments)
    printed = capsys.readouterr().out
    skipped = 'skipping openvino, which is not installed: pip install "segmodels[benchmark]"'
    assert skipped in printed
    assert report["not_installed"] == ["openvino"]
    rows = report["networks"]["unet-tiny"]["forward"]["24x16"]
    assert list(rows) == ["plain fp32", "Segmenter fp32", "onnxruntime fp32", "floor"]
    assert rows["onnxruntime fp32"]["same_pixels"] > 0.99
    assert "2 of 24x16" not in printed


def test_the_default_image_is_the_example_of_a_clone_or_random_colors(tmp_path, monkeypatch):
    with command._example() as example, Image.open(ROOT / "examples" / "avenue.jpg") as image:
        assert example == image
    monkeypatch.setattr(command, "EXAMPLE", tmp_path / "avenue.jpg")
    assert command._example().size == (12, 9)


def test_against_refuses_unknown_engines(folder, capsys):
    assert main(["benchmark", "--model", str(folder), "--against", "tvm"]) == 1
    expected = "unknown engine tvm; choose from onnxruntime, openvino, torch.compile"
    assert expected in capsys.readouterr().err


def test_seconds_must_be_positive(folder, capsys):
    assert main(["benchmark", "--model", str(folder), "--seconds", "0"]) == 1
    assert "--seconds must be positive" in capsys.readouterr().err
