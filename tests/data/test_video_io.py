"""Reading and writing video files."""

import sys

import av
import numpy as np
import pytest

from segmodels.data.video_io import (
    VideoError,
    VideoLimits,
    open_video,
    read_comment,
    video_writer,
)
from tests.support.clips import frames, read_clip, write_clip


def read(path, limits=None, **options):
    with open_video(path, limits) as video:
        return list(video.frames(**options))


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4")


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mov", "mpeg4"), ("a.webm", "libvpx-vp9"), ("a.gif", "gif")],
)
def test_a_video_is_read_whatever_its_container(tmp_path, name, codec):
    found = read(write_clip(tmp_path / name, codec=codec))
    assert len(found) == 6
    for frame, image in zip(found, frames(), strict=True):
        assert np.abs(frame.image.astype(int) - image).mean() < 12  # lossy
    assert [frame.seconds for frame in found] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


# Turned clockwise by 90 degrees, what was at the left is at the top; by 270, at the bottom.
@pytest.mark.parametrize(("turn", "times"), [(90, 3), (180, 2), (270, 1)])
def test_frames_are_turned_as_the_file_says(tmp_path, turn, times):
    (first, *_) = read(write_clip(tmp_path / "turned.mp4", turn=turn))
    expected = np.rot90(frames()[0], times)
    assert first.image.shape == expected.shape
    assert np.abs(first.image.astype(int) - expected).mean() < 12


def test_times_of_a_variable_frame_rate_are_kept(tmp_path):
    times = [0, 1, 2, 7, 8, 12]
    found = read(write_clip(tmp_path / "phone.mp4", times=times))
    assert [frame.seconds for frame in found] == pytest.approx([time / 10 for time in times])


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    path = tmp_path / "anamorphic.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frames()[0], format="rgb24")))
        container.mux(stream.encode())
    assert read(path)[0].image.shape == (48, 128, 3)


def test_frames_are_scaled_down_never_up(clip):
    assert read(clip, longer_side=32)[0].image.shape == (24, 32, 3)
    assert read(clip, longer_side=500)[0].image.shape == (48, 64, 3)


def test_what_is_known_before_decoding(tmp_path):
    with open_video(write_clip(tmp_path / "a.mp4", sound=True)) as video:
        assert (video.rate, video.frame_count, video.has_sound) == (10, 6, True)
    with open_video(write_clip(tmp_path / "b.webm", codec="libvpx-vp9")) as video:
        assert (video.rate, video.frame_count, video.has_sound) == (10, 6, False)


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        (VideoLimits(seconds=0.1), "longer than 0 seconds"),
        (VideoLimits(frames=5), "more than 5 frames"),
        (VideoLimits(pixels=3071), "at most 0.0 megapixels"),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])  # WebM's header tells no number of frames
def test_what_exceeds_a_limit_is_refused(tmp_path, limits, problem, name):
    images = frames(8)
    path = write_clip(
        tmp_path / name, images, codec="libvpx-vp9" if name.endswith("webm") else "libx264"
    )
    with pytest.raises(VideoError, match=problem):
        read(path, limits)


def test_a_header_that_understates_the_length_does_not_help(tmp_path):
    path = write_clip(tmp_path / "long.mp4", times=[0, 1, 2, 3, 4, 400])
    with open_video(path) as video:
        video._limits = VideoLimits(seconds=20)  # as if the header had passed
        with pytest.raises(VideoError, match="longer than 20 seconds"):
            list(video.frames())


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("empty.mp4", b"", "empty"),
        ("notes.mp4", b"this is a text and no video", "not a video"),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/a.ts\n", "not a video"),
        ("list.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n", "not a video"),
        ("cut.mp4", b"\0\0\0\x18ftypisom" + bytes(500), "damaged"),
    ],
)
def test_what_is_no_video_is_refused_in_words(tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VideoError, match=problem) as error:
        read(tmp_path / name)
    assert "expected an MP4" in str(error.value)
    assert str(tmp_path) not in str(error.value)


def test_a_damaged_video_is_refused_or_read_in_part(clip):
    data = bytearray(clip.read_bytes())
    generator = np.random.default_rng(0)
    for _ in range(40):
        broken = bytearray(data)
        for at in generator.integers(0, len(data), 30):
            broken[at] = generator.integers(0, 256)
        clip.write_bytes(broken)
        try:
            assert len(read(clip, VideoLimits(20, 100, 100_000))) <= 100
        except VideoError as error:
            assert clip.name in str(error)  # noqa: PT017


def test_other_codecs_and_files_without_images_are_named(tmp_path):
    with pytest.raises(VideoError, match="ffv1, which is not supported"):
        read(write_clip(tmp_path / "a.mkv", codec="ffv1"))
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        container.mux(stream.encode(None))
    with pytest.raises(VideoError):
        read(path)
    with pytest.raises(VideoError, match=r"there is no file .*; expected an MP4"):
        read(tmp_path / "missing.mp4")


def test_without_pyav_it_is_said_how_to_install_it(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoError, match=r'pip install "segmodels\[video\]"'):
        read(clip)


def test_written_videos_have_the_times_of_their_source_and_its_colors(tmp_path):
    times = [0, 1, 2, 7, 8, 12]
    source = write_clip(tmp_path / "source.mp4", times=times)
    images = [image[:45, :63] for image in frames()]  # odd sizes get a row or column more
    with (
        open_video(source) as video,
        video_writer(tmp_path / "out.mp4", video, metadata={"comment": "ours"}) as writer,
    ):
        for frame, image in zip(video.frames(), images, strict=True):
            writer.write(image, frame.pts)
    found, seconds = read_clip(tmp_path / "out.mp4")
    assert seconds == pytest.approx([time / 10 for time in times])
    assert found[0].shape == (46, 64, 3)
    for one, image in zip(found, images, strict=True):
        assert np.abs(one[:45, :63].astype(int) - image).mean() < 10
    assert read_comment(tmp_path / "out.mp4") == "ours"
    assert read_comment(source) == ""
    assert read_comment(tmp_path / "none") == ""


def test_an_exact_video_keeps_every_value(tmp_path):
    generator = np.random.default_rng(1)
    ids = [generator.integers(0, 256, (48, 63), np.uint8) for _ in range(6)]
    with (
        open_video(write_clip(tmp_path / "source.mp4")) as video,
        video_writer(
            tmp_path / "ids", video, lossless=True, metadata={"comment": "ours"}
        ) as writer,
    ):
        for frame, one in zip(video.frames(), ids, strict=True):
            writer.write(one, frame.pts)
    with av.open(str(tmp_path / "ids")) as container:
        found = [frame.to_ndarray() for frame in container.decode(video=0)]
    assert np.array_equal(found, ids)
