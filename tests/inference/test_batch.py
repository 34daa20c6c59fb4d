"""Many pictures: as one by one, and in batches."""

import numpy as np
import pytest
import torch
from PIL import Image

from segmodels import Segmenter, UNet
from segmodels.data.image_io import read_image_array
from segmodels.inference.batch import Done, Failure, Predictor
from segmodels.inference.result_files import Job, Origin
from tests.support.datasets import CLASS_NAMES

ORIGIN = Origin("unet-tiny", "0" * 64)
SIZES = [(30, 20), (30, 20), (16, 40), (30, 20), (16, 40), (30, 20), (9, 9)]  # width, height


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The network's folder."""
    folder = tmp_path_factory.mktemp("models") / "unet-tiny"
    UNet(class_names=CLASS_NAMES, base_channels=2).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def segmenter(folder):
    return Segmenter(UNet.from_pretrained(folder), "cpu", "fp32")


@pytest.fixture
def jobs(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "out").mkdir()
    found = []
    for number, (width, height) in enumerate(SIZES):
        path = tmp_path / f"{number}.png"
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(path)
        out = tmp_path / "out"
        found.append(Job(path, out / f"{number}.png", out / f"{number}_overlay.png"))
    return found


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), (2, 3), (5, 2), (100, 1)])
def test_every_picture_is_segmented_as_it_is_alone(segmenter, jobs, batch_size, threads):
    predictor = Predictor(segmenter, ORIGIN, batch_size=batch_size, threads=threads)
    done = list(predictor.run(jobs))
    assert sorted(done, key=str) == sorted((Done(job, None) for job in jobs), key=str)
    for job in jobs:
        expected = segmenter(job.image)
        with Image.open(job.class_ids) as ids:
            assert np.array_equal(np.array(ids), expected.class_map)
        assert np.array_equal(read_image_array(job.overlay), np.array(expected.overlay(0.5)))
    assert 0 < predictor.busy <= 1


def test_pictures_of_one_size_go_through_together_and_few_wait(segmenter, jobs, monkeypatch):
    batches = []
    segment_batch = segmenter.segment_batch

    def recorded(images, pixels):
        batches.append(tuple(pixels.shape))
        return segment_batch(images, pixels)

    monkeypatch.setattr(segmenter, "segment_batch", recorded)
    list(Predictor(segmenter, ORIGIN, batch_size=2, threads=1).run(jobs))
    # A pair of 20 x 30; (16, 40), 20 x 30 and a second (16, 40) that makes a pair; another 20 x 30
    # does too; 9 x 9 is left.
    assert batches == [(2, 3, 20, 30), (2, 3, 40, 16), (2, 3, 20, 30), (1, 3, 9, 9)]


def test_a_bad_picture_is_reported_and_the_rest_go_on(segmenter, jobs):
    jobs[2].image.write_text("no picture")
    failures = [one for one in Predictor(segmenter, ORIGIN).run(jobs) if isinstance(one, Failure)]
    assert [failure.job for failure in failures] == [jobs[2]]
    assert "2.png" in failures[0].reason
    assert written(jobs) == [True, True, False, True, True, True, True]


def written(jobs):
    return [job.class_ids.exists() and job.overlay.exists() for job in jobs]


def test_a_full_disk_fails_every_image_and_no_half_file_stays(segmenter, jobs, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    failures = list(Predictor(segmenter, ORIGIN).run(jobs))
    assert [failure.reason for failure in failures] == ["No space left on device"] * len(jobs)
    assert not list(jobs[0].class_ids.parent.iterdir())


def test_one_image_of_a_batch_that_fails_leaves_the_others_their_results(
    segmenter, jobs, monkeypatch
):
    segment_batch = segmenter.segment_batch

    def fragile(images, pixels):
        if any(image.image.size == (9, 9) for image in images):
            raise RuntimeError("not this one")
        return segment_batch(images, pixels)

    Image.new("RGB", (9, 9)).save(jobs[0].image)
    monkeypatch.setattr(segmenter, "segment_batch", fragile)
    monkeypatch.setattr(segmenter, "pixels", lambda *_: torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    outcomes = list(Predictor(segmenter, ORIGIN, batch_size=4).run(jobs))
    failures = [one for one in outcomes if isinstance(one, Failure)]
    assert {failure.job for failure in failures} == {jobs[0], jobs[6]}
    assert {failure.reason for failure in failures} == {"RuntimeError: not this one"}
    assert len(outcomes) == len(jobs)


def test_a_file_that_appears_meanwhile_is_not_replaced(segmenter, jobs):
    jobs[1].overlay.write_text("the user's")
    failures = [one for one in Predictor(segmenter, ORIGIN).run(jobs) if isinstance(one, Failure)]
    assert [failure.job for failure in failures] == [jobs[1]]
    assert "1_overlay.png was created meanwhile" in failures[0].reason
    assert jobs[1].overlay.read_text() == "the user's"
