"""Videos and camera frames of the page."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from segmodels.data.image_io import PictureError
from segmodels.data.video_io import Frame, VideoError, VideoLimits
from segmodels.demo import video
from segmodels.demo.service import ComparisonService
from segmodels.demo.video import VideoService, thinned
from segmodels.utils.palette import safe_palette
from tests.support.clips import read_clip, write_clip

TIMES = [0, 1, 2, 7, 8, 12]


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4", times=TIMES, sound=True)


@pytest.fixture
def videos(service):
    return VideoService(service)


def compared(videos, clip, out, *, rate=None, safe=False, scene="road"):
    sources = videos.service.sources_of(scene, {})
    return list(videos.compare(str(clip), str(out), sources, rate, safe))


def test_the_masks_are_a_video_with_the_times_of_the_frames(videos, clip, tmp_path):
    progress = compared(videos, clip, tmp_path / "out.mp4")
    assert [each.done for each in progress] == [1, 2, 3, 4, 5, 6]
    assert (progress[-1].total, progress[-1].seconds_left, progress[-1].has_sound) == (6, 0, True)
    images, times = read_clip(tmp_path / "out.mp4")
    assert times == pytest.approx([time / 10 for time in TIMES])
    # Three panels of 64 x 48 between two margins of 12, two gaps of 8, below a line of 18 + 8.
    assert images[0].shape[1] == 3 * 64 + 2 * 8 + 2 * 12
    network = videos.service.network(videos.service.sources_of("road", {})[1])
    overlay = np.array(network.segmenter(read_clip(clip)[0][0]).overlay(0.6)).astype(int)
    panel = images[0][12 + 26 :][:48, 12 + 64 + 8 :][:, :64]
    assert np.abs(panel - overlay).mean() < 15  # lossy


def test_the_safe_colors_are_a_choice(videos, clip, tmp_path):
    names = videos.service.network("weights_card/unet-msrc").model.class_names

    def legend_colors(safe):
        compared(videos, clip, tmp_path / "out.mp4", safe=safe, scene="everyday", rate=1)
        bottom = read_clip(tmp_path / "out.mp4")[0][0][12 + 26 + 48 :].astype(int)
        return [np.abs(bottom - color).sum(2).min() for color in safe_palette(names)]

    assert max(legend_colors(safe=True)) < 40
    assert max(legend_colors(safe=False)) > 60


def test_frames_are_left_out_at_their_own_times():
    frames = [Frame(np.zeros((1, 1, 3), np.uint8), n, n / 30) for n in range(30)]
    assert [frame.pts for frame in thinned(frames, None)] == list(range(30))
    assert [frame.pts for frame in thinned(frames, 10)] == list(range(0, 30, 3))
    assert [frame.pts for frame in thinned(frames, 100)] == list(range(30))
    gap = [frames[0], frames[1], frames[20], frames[21], frames[29]]
    assert [frame.pts for frame in thinned(gap, 5)] == [0, 20, 29]


def test_a_video_that_would_take_too_long_is_refused(videos, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "MAX_WORK", 1e-9)
    with pytest.raises(VideoError, match="fewer frames per second"):
        compared(videos, clip, tmp_path / "out.mp4")
    monkeypatch.setattr(video, "LIMITS", VideoLimits(frames=3))
    with pytest.raises(VideoError, match="more than 3 frames"):
        compared(videos, clip, tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == [clip]


def test_nothing_is_left_of_a_video_that_is_cancelled(videos, clip, tmp_path):
    sources = videos.service.sources_of("everyday", {})
    running = videos.compare(str(clip), str(tmp_path / "out.mp4"), sources, None, False)
    next(running)
    running.close()
    assert list(tmp_path.iterdir()) == [clip]


def test_a_network_that_fails_does_not_keep_the_others_from_answering(
    networks, clip, tmp_path, monkeypatch
):
    calls = []

    def fail(*_, **__):
        calls.append(1)
        raise RuntimeError("not this one")

    broken = [replace(network, segmenter=Broken(network.segmenter, fail)) for network in networks]
    videos = VideoService(ComparisonService([broken[0], *networks[1:]]))
    assert len(compared(videos, clip, tmp_path / "out.mp4", rate=5)) == 5
    assert len(calls) == 1  # it is not tried again with each frame
    videos = VideoService(ComparisonService([*broken[:3], networks[3]]))
    with pytest.raises(VideoError, match="failed"):
        compared(videos, clip, tmp_path / "out2.mp4")


class Broken:
    """A segmenter that fails when it is called."""

    def __init__(self, segmenter, call):
        self.segmenter, self.call = segmenter, call

    def __getattr__(self, name):
        return getattr(self.segmenter, name)

    def __call__(self, *arguments, **options):
        return self.call(*arguments, **options)


def as_url(image, kind="JPEG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def test_a_frame_of_the_camera_is_segmented_and_not_kept(videos, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = videos.service.sources_of("road", {})[1]
    view = videos.segment_frame(as_url(Image.new("RGB", (40, 30), "red")), source)
    assert view["size"] == [40, 30]
    assert [panel["title"] for panel in view["panels"]] == ["U-Net"]
    assert view["panels"][0]["maps"][0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        None,
        "http://127.0.0.1/a.jpg",
        "data:image/png;base64,AAAA",
        "data:image/jpeg;base64,not base64",
        "data:image/jpeg;base64,AAAA",
        "data:image/jpeg;base64," + "A" * 800_000,
        as_url(Image.new("L", (2000, 1000))),
    ],
)
def test_what_is_no_frame_of_a_camera_is_refused(videos, url):
    with pytest.raises(PictureError):
        videos.segment_frame(url, videos.service.sources_of("road", {})[0])
