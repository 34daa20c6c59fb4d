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
from segmodels.cli.main import main
from segmodels.data.dataset import open_data
from segmodels.evaluation import benchmark
from tests.support.datasets import CLASS_NAMES, write_camvid

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "unet-tiny"
    UNet(class_names=CLASS_NAMES, base_channels=2).save_pretrained(folder)
    return folder


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(benchmark, "CASES", {"24x16": (1, 16, 24), "2 of 24x16": (2, 16, 24)})
    monkeypatch.setattr(benchmark, "MIN_ROUNDS", 2)
    monkeypatch.setattr(benchmark, "PROBE", (16, 24))


def test_works_are_timed_in_turns_after_one_that_does_not_count(monkeypatch):
    monkeypatch.setattr(benchmark, "MAX_ROUNDS", 4)
    order = []
    works = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    timings = benchmark.in_turns(works, 60, CPU)
    assert "".join(order) == "ab" * 5
    assert set(timings) == {"a", "b"}


def test_a_timing_is_the_median_and_the_middle_half():
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
    calls = benchmark.convolutions(model.eval(), (1, 3, 32, 64))
    assert len(calls) == expected
    assert calls[0].shape == (1, 3, 32, 64)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert {id(call.layer) for call in calls} == {id(layer) for layer in layers}
    assert not any(layer._forward_pre_hooks for layer in layers)


def test_the_floor_computes_those_convolutions_in_its_own_arithmetic():
    calls = benchmark.convolutions(SegNet(class_names=CLASS_NAMES, variant="basic"), (1, 3, 16, 16))
    seen = []

    class Recorded(nn.Conv2d):
        def forward(self, pixels):
            seen.append((pixels.dtype, pixels.is_contiguous(memory_format=torch.channels_last)))
            return super().forward(pixels)

    for call in calls:
        call.layer.__class__ = Recorded
    benchmark.convolutions_alone(calls, torch.bfloat16, torch.channels_last)()
    assert seen == [(torch.bfloat16, True)] * 9


def test_forwards_compare_the_three_ways(folder, small):
    segmenter = Segmenter(UNet.from_pretrained(folder), "cpu")
    rows = benchmark.forwards(segmenter, 0)
    assert list(rows) == ["24x16", "2 of 24x16"]
    for row in rows.values():
        median = {way: row[way]["median"] for way in ("plain", "segmenter", "floor")}
        assert all(seconds > 0 for seconds in median.values())
        assert row["over_plain"] == median["segmenter"] / median["plain"]
        assert row["over_floor"] == median["segmenter"] / median["floor"]
        assert row["floor_in"].split(", ")[0] in ("float32", "bfloat16")


@pytest.mark.parametrize("pays", [True, False])
def test_the_floor_is_looked_for_in_bf16_where_that_pays(pays, small, monkeypatch):
    monkeypatch.setattr(benchmark, "bf16_is_fast", lambda: pays)
    tried = []

    def work(calls, dtype, layout):
        tried.append((dtype, layout))
        return lambda: time.sleep(0.001 if tried[-1] == (dtype, layout) else 0.01)

    monkeypatch.setattr(benchmark, "convolutions_alone", work)
    model = UNet(class_names=CLASS_NAMES, base_channels=2)
    assert benchmark.fastest_arithmetic(model, CPU) == tried[-1]
    layouts = [torch.contiguous_format, torch.channels_last]
    dtypes = [torch.float32, torch.bfloat16] if pays else [torch.float32]
    assert tried == [(dtype, layout) for dtype in dtypes for layout in layouts]


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_stages_are_those_of_a_call(padding, tmp_path, small, monkeypatch):
    model = UNet(class_names=CLASS_NAMES, base_channels=2, padding=padding, working_size=24)
    segmenter = Segmenter(model, "cpu", "fp32")
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8)).save(tmp_path / "a.png")
    drawn = []
    monkeypatch.setattr(benchmark.Segmentation, "overlay", lambda result: drawn.append(result))
    figures = benchmark.stages(segmenter, tmp_path / "a.png", 0)
    assert figures["size"] == [40, 30]
    assert all(figures[stage]["median"] > 0 for stage in (*benchmark.STAGES, "call", "pillow"))
    rest = sum(figures[stage]["median"] for stage in ("decode", "prepare", "argmax"))
    assert figures["rest_over_forward"] == pytest.approx(rest / figures["forward"]["median"])
    expected = segmenter(tmp_path / "a.png")
    assert np.array_equal(drawn[-1].class_map, expected.class_map)
    assert np.array_equal(drawn[-1].confidence, expected.confidence)


def test_quality_is_the_share_of_equal_pixels_and_both_mean_ious(folder, tmp_path):
    data = write_camvid(tmp_path / "camvid", test=2)
    model = UNet.from_pretrained(folder)
    found = benchmark.quality(Segmenter(model, "cpu", "fp32"), open_data(data, "test"))
    assert found["pictures"] == 2
    assert found["same_pixels"] == 1
    assert found["mean_iou"]["plain"] == found["mean_iou"]["segmenter"]


def test_peak_memory_is_what_is_taken_at_most():
    # In a process of its own, as in `benchmark.peaks`: here memory of earlier tests may be reused.
    program = """
import numpy
import torch
from segmodels.evaluation import peak
print(peak.peak_bytes(lambda: [numpy.ones(n << 20, "u1").sum() for n in (30, 60, 10)],
                      torch.device("cpu")))
"""
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # 60 MiB, give or take the interpreter's own.
    assert int(printed) == pytest.approx(60 << 20, abs=8 << 20)


def test_the_command_prints_and_writes_everything(folder, tmp_path, small, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "peaks", lambda *_: {"plain": 3 << 20, "segmenter": None})
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    data = write_camvid(tmp_path / "camvid", test=1)
    arguments = ["--model", folder, "--picture", tmp_path / "a.png", "--seconds", "0.01"]
    arguments += ["--data", data, "--json", tmp_path / "figures.json", "--device", "cpu"]
    assert main(["benchmark", *map(str, arguments)]) == 0
    printed = capsys.readouterr().out
    for text in ("unet-tiny", "24x16", "40x30", "/floor", "plain 3 MiB", "not told", "mean IoU"):
        assert text in printed
    report = json.loads((tmp_path / "figures.json").read_text())
    assert set(report) == {"machine", "precision", "networks"}
    assert set(report["networks"]["unet-tiny"]) == {
        *("forward", "pictures", "peak_bytes", "quality")
    }


def test_peaks_come_from_a_process_of_their_own(folder):
    found = benchmark.peaks(str(folder), CPU)
    # 480 x 360 pixels of 3 channels in float32 are 2 MiB; the first level's two channels 1.3.
    assert all(size > 2 << 20 for size in found.values())


def test_seconds_must_be_positive(folder, capsys):
    assert main(["benchmark", "--model", str(folder), "--seconds", "0"]) == 1
    assert "--seconds must be more than 0" in capsys.readouterr().err
