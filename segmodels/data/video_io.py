"""Video files: to upright RGB arrays, and from arrays. Needs PyAV, the extra `video`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from segmodels.data._untrusted_images import PictureError, open_regular

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

INSTALL = 'videos need PyAV: pip install "segmodels[video]"'
SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv")
ACCEPTED = "an MP4, MOV, WebM or Matroska video, or an animated GIF"

# The demuxers that are used, by a file's first bytes, and the decoders. FFmpeg has hundreds, some
# of which open other files or addresses.
BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # of ISO/IEC 14496-12 and QuickTime
EBML = b"\x1a\x45\xdf\xa3"
DECODERS = (
    *("av1", "gif", "h264", "hevc", "libdav1d", "libvpx", "libvpx-vp9", "mjpeg", "mpeg4"),
    *("prores", "vp8", "vp9"),
)
USUAL_RATE = Fraction(25)  # frames a second of a file that does not tell
BT709, LIMITED_RANGE = 1, 1  # ITU-T H.273, and FFmpeg's name for it


class VideoError(PictureError):
    """A video that cannot be used: what is wrong with it, and what is accepted."""


@dataclass(frozen=True)
class VideoLimits:
    """What is refused.

    Attributes:
        seconds: Longer videos.
        frames: Videos of more frames.
        pixels: Larger frames.
    """

    seconds: float = math.inf
    frames: float = math.inf
    pixels: int = 7680 * 4320


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright.
        pts: When it is shown, in units of the video's `time_base`; 0 for the first frame.
        seconds: The same in seconds.
    """

    image: NDArray[np.uint8]
    pts: int
    seconds: float


class Video:
    """A video file that is open for reading, see `open_video`.

    Attributes:
        rate: Frames a second, on average.
        time_base: The unit of the frames' times, in seconds.
        frame_count: How many frames there probably are; None where the file does not tell.
        has_sound: Whether there is sound, which is not read.
    """

    def __init__(self, container: InputContainer, name: str, limits: VideoLimits) -> None:
        self._container = container
        self._name = name
        self._limits = limits
        self._stream = self._video_stream()
        self.rate = self._stream.average_rate or USUAL_RATE
        self.time_base = self._stream.time_base or 1 / self.rate
        self.has_sound = bool(container.streams.audio)
        seconds = None if container.duration is None else container.duration / 1_000_000
        guess = None if seconds is None else round(seconds * self.rate)
        self.frame_count = self._stream.frames or guess
        self._check(seconds or 0.0, self._stream.frames)
        self._check_size(self._stream.codec_context.width, self._stream.codec_context.height)

    def frames(self, longer_side: int | None = None) -> Iterator[Frame]:
        """Decode the video, once.

        Args:
            longer_side: Larger frames are scaled down to it. None: the frames' own.

        Yields:
            The frames in their order, all of the first one's size, with square pixels.

        Raises:
            VideoError: If the video is damaged, holds no frame, or exceeds the limits.
        """
        start, last, size, number = 0, -1, (0, 0), 0
        for number, frame in enumerate(self._decoded(), 1):
            if number == 1:
                start, size = frame.pts or 0, self._shown_size(frame, longer_side)
            gap = max(1, round(1 / (self.rate * self.time_base)))
            last = last + gap if frame.pts is None else max(frame.pts - start, last + 1)
            seconds = float(last * self.time_base)
            self._check(seconds, number)
            yield Frame(_upright(frame, size), last, seconds)
        if number == 0:
            raise VideoError(f"{self._name} holds no frame; expected {ACCEPTED}")

    def _video_stream(self) -> VideoStream:
        stream = self._container.streams.best("video")
        if stream is None:
            raise VideoError(f"{self._name} holds no images, only sound; expected {ACCEPTED}")
        codec = stream.codec_context
        if codec is None or codec.name not in DECODERS:
            raise VideoError(
                f"{self._name} is compressed with {codec.name if codec else 'an unknown codec'}, "
                "which is not read: convert it to H.264, VP9 or AV1"
            )
        codec.options = {"max_pixels": str(self._limits.pixels)}
        codec.thread_type = "AUTO"
        return stream  # type: ignore[return-value]

    def _decoded(self) -> Iterator[VideoFrame]:
        with _av_errors(self._name):
            for frame in self._container.decode(self._stream):
                self._check_size(frame.width, frame.height)
                yield frame

    def _shown_size(self, frame: VideoFrame, longer_side: int | None) -> tuple[int, int]:
        """(width, height) of the stored frame, its pixels square and scaled down."""
        aspect = self._stream.sample_aspect_ratio or 1
        width, height = float(frame.width * aspect), float(frame.height)
        scale = min(1.0, (longer_side or math.inf) / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))

    def _check(self, seconds: float, frames: int) -> None:
        """Against the limits of length, which a file's header may understate."""
        if seconds > self._limits.seconds + 0.5:
            raise VideoError(
                f"{self._name} is longer than {self._limits.seconds:.0f} seconds; cut it first"
            )
        if frames > self._limits.frames:
            raise VideoError(
                f"{self._name} has more than {self._limits.frames:.0f} frames; cut it, or lower "
                "its frame rate"
            )

    def _check_size(self, width: int, height: int) -> None:
        if not 0 < width * height <= self._limits.pixels:  # 0: FFmpeg has refused to look at one
            size = f"of {width} x {height} pixels" if width else "too large to be looked at"
            raise VideoError(
                f"{self._name} has frames {size}; at most {self._limits.pixels / 1e6:.1f} "
                "megapixels are accepted: scale it down first"
            )


@contextmanager
def open_video(path: Path, limits: VideoLimits | None = None) -> Iterator[Video]:
    """Open a video file of any origin, without decoding it.

    Args:
        path: A regular file, whatever its suffix: MP4, MOV, WebM, Matroska or GIF.
        limits: What is refused; None: frames of more than 33 megapixels.

    Yields:
        The video, whose file is closed when the block ends.

    Raises:
        VideoError: If it is not such a file, exceeds the limits, or PyAV is missing.
    """
    limits = limits or VideoLimits()
    with _container(path, limits.pixels) as container:
        yield Video(container, path.name, limits)


@contextmanager
def _container(path: Path, max_pixels: int) -> Iterator[InputContainer]:
    """The file by one of the demuxers, which can open no other file."""
    av = _load_av()
    options = {
        "codec_whitelist": ",".join(DECODERS),
        "protocol_whitelist": "none",
        "max_pixels": str(max_pixels),
    }
    with _regular(path) as file:
        with _av_errors(path.name):
            container = av.open(
                file,
                format=_demuxer(file, path.name),
                options=options,
                metadata_errors="replace",
                io_open=_refuse_to_open,
            )
        with container:
            yield container


class VideoWriter:
    """A video file that is being written, see `writing_video`."""

    def __init__(self, container: OutputContainer, source: Video, exact: bool) -> None:
        self._container = container
        self._source = source
        self._exact = exact
        self._stream: VideoStream | None = None

    def write(self, image: NDArray[np.uint8], pts: int) -> None:
        """Append a frame.

        Args:
            image: (H, W, 3) uint8 RGB or, of an exact video, (H, W) uint8; all of one size.
            pts: When it is shown, in units of the source's `time_base`.
        """
        frame = self._frame(image)
        frame.pts, frame.time_base = pts, self._source.time_base
        if self._stream is None:
            self._stream = self._new_stream(frame.width, frame.height)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())

    def _frame(self, image: NDArray[np.uint8]) -> VideoFrame:
        from av import VideoFrame

        if self._exact:
            return VideoFrame.from_ndarray(np.ascontiguousarray(image), format="gray")
        height, width = image.shape[:2]  # H.264 halves the resolution of colors
        even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        frame = VideoFrame.from_ndarray(even, format="rgb24")
        return frame.reformat(
            format="yuv420p", dst_colorspace="ITU709", dst_color_range=LIMITED_RANGE
        )

    def _new_stream(self, width: int, height: int) -> VideoStream:
        if self._exact:
            stream = self._container.add_stream("ffv1", rate=self._source.rate)
            stream.pix_fmt = "gray"
        else:
            options = {"crf": "20", "preset": "veryfast"}
            stream = self._container.add_stream("libx264", rate=self._source.rate, options=options)
            stream.pix_fmt = "yuv420p"
            codec = stream.codec_context
            codec.colorspace = codec.color_primaries = codec.color_trc = BT709
            codec.color_range = LIMITED_RANGE
        stream.width, stream.height = width, height
        stream.codec_context.time_base = stream.time_base = self._source.time_base
        return stream


@contextmanager
def writing_video(
    path: Path, source: Video, *, exact: bool = False, metadata: Mapping[str, str] | None = None
) -> Iterator[VideoWriter]:
    """Write a video with the times of another one's frames, and no sound.

    Args:
        path: The file, whatever its suffix; the caller removes it where the block raises.
        source: Where the times come from.
        exact: Matroska with FFV1, (H, W) frames, every value kept; or else MP4 with H.264, for
            looking at.
        metadata: Texts for the file: MP4 keeps "title" and "comment".

    Yields:
        What writes the frames.

    Raises:
        VideoError: If PyAV is missing.
        OSError: If the file cannot be written.
    """
    av = _load_av()
    options = {} if exact else {"movflags": "+faststart"}  # playable while it is loaded
    kind = "matroska" if exact else "mp4"
    with av.open(str(path), "w", format=kind, options=options) as container:
        container.metadata.update(metadata or {})
        writer = VideoWriter(container, source, exact)
        yield writer
        writer.finish()


def read_comment(path: Path) -> str:
    """The text "comment" of a video's metadata; "" for none, and for any other file."""
    try:
        with _container(path, VideoLimits().pixels) as container:
            texts = {name.lower(): text for name, text in container.metadata.items()}
            return texts.get("comment", "")  # Matroska's names are in capitals
    except PictureError:
        return ""


def _load_av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise VideoError(INSTALL) from error
    return av


@contextmanager
def _av_errors(name: str) -> Iterator[None]:
    import av

    try:
        yield
    except (av.FFmpegError, OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(
            f"{name} is damaged, cut off or of a kind that is not read: {reason}; expected "
            f"{ACCEPTED}"
        ) from error


def _regular(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except VideoError:
        raise
    except PictureError as error:  # which names image files as what is expected
        raise VideoError(f"{str(error).partition('; expected')[0]}; expected {ACCEPTED}") from error


def _demuxer(file: BinaryIO, name: str) -> str:
    head = file.read(12)
    file.seek(0)
    if head[4:8] in BOXES:
        return "mp4"
    if head[:4] == EBML:
        return "matroska"
    if head[:4] == b"GIF8":
        return "gif"
    raise VideoError(f"{name} is not a video that is read; expected {ACCEPTED}")


def _refuse_to_open(url: str, *_: Any) -> BinaryIO:
    raise PermissionError(f"a video must not refer to {url!r}")


def _upright(frame: VideoFrame, size: tuple[int, int]) -> NDArray[np.uint8]:
    """RGB at (width, height), turned as the file says."""
    array = frame.reformat(width=size[0], height=size[1], format="rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(array, round(frame.rotation / 90)))
