"""Segmenting videos, against single images."""

import av
import numpy as np
import pytest

from segmodels import Segmenter, UNet
from segmodels.data.video_io import VideoError, VideoLimits, open_video
from segmodels.inference.result_files import Origin, plan_jobs
from segmodels.inference.video import VIDEO_RESULTS, predict_video, segment_video
from tests.support.clips import read_clip, write_clip
from tests.support.networks import network


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter(network(UNet, working_size=48), "cpu", "fp32")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(
        tmp_path_factory.mktemp("clips") / "clip.mp4", times=[0, 1, 2, 7, 8, 12], sound=True
    )


ORIGIN = Origin("unet", "digest")


def job(clip, out):
    (planned,) = plan_jobs([clip], out, ORIGIN, VIDEO_RESULTS)
    return planned


@pytest.mark.parametrize("batch_size", [1, 4])
def test_frames_are_segmented_like_images(segmenter, clip, batch_size):
    images, _ = read_clip(clip)
    with open_video(clip) as video:
        answers = list(segment_video(video, segmenter, batch_size=batch_size))
    assert len(answers) == 6
    for (frame, result), image in zip(answers, images, strict=True):
        assert np.array_equal(frame.image, image)
        assert np.array_equal(result.class_map, segmenter(image).class_map)


def test_class_ids_are_exact_and_both_files_have_the_times_of_the_video(segmenter, clip, tmp_path):
    planned = job(clip, tmp_path)
    assert list(predict_video(planned, segmenter, ORIGIN))[-1] == (6, 6)
    images, times = read_clip(clip)
    with av.open(str(tmp_path / "clip.mkv")) as container:
        found = [(f.to_ndarray(format="gray"), f.time) for f in container.decode(video=0)]
    for (class_map, time), image, expected in zip(found, images, times, strict=True):
        assert np.array_equal(class_map, segmenter(image).class_map)
        assert time == pytest.approx(expected, abs=0.001)
    overlays, seconds = read_clip(tmp_path / "clip_overlay.mp4")
    assert seconds == pytest.approx(times)
    expected = np.array(segmenter(images[0]).overlay(0.5)).astype(int)
    assert np.abs(overlays[0] - expected).mean() < 12  # lossy
    with av.open(str(tmp_path / "clip_overlay.mp4")) as container:
        assert not container.streams.audio


def test_results_are_known_again_and_no_other_file_is_replaced(segmenter, clip, tmp_path):
    (tmp_path / "clip.mkv").write_bytes(b"somebody's")
    first = job(clip, tmp_path)
    assert first.class_ids.name == "clip_mp4.mkv"
    list(predict_video(first, segmenter, ORIGIN))
    again = job(clip, tmp_path)
    assert (again.class_ids, again.is_done, again.may_replace) == (first.class_ids, True, True)
    (other,) = plan_jobs([clip], tmp_path, Origin("unet", "another"), VIDEO_RESULTS)
    assert other.class_ids not in (first.class_ids, tmp_path / "clip.mkv")
    assert (tmp_path / "clip.mkv").read_bytes() == b"somebody's"


def test_nothing_is_left_of_a_video_that_fails_or_is_cancelled(segmenter, clip, tmp_path):
    with pytest.raises(VideoError, match="frames"):
        list(predict_video(job(clip, tmp_path), segmenter, ORIGIN, limits=VideoLimits(frames=3)))
    cancelled = predict_video(job(clip, tmp_path), segmenter, ORIGIN)
    next(cancelled)
    cancelled.close()
    assert list(tmp_path.iterdir()) == []
