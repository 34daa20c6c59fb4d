"""Reading and writing of video files. Requires PyAV (extra `video`)."""

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

INSTALL = 'videos require PyAV: pip install "segmodels[video]"'
SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv")
ACCEPTED = "an MP4, MOV, WebM or Matroska video, or an animated GIF"

# Signatures that select the demuxer, and the allowed decoders. FFmpeg has hundreds of them, some of
# which open other files or URLs.
BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # ISO/IEC 14496-12 and QuickTime
EBML = b"\x1a\x45\xdf\xa3"  # Matroska and WebM
DECODERS = (
    *("av1", "gif", "h264", "hevc", "libdav1d", "libvpx", "libvpx-vp9", "mjpeg", "mpeg4"),
    *("prores", "vp8", "vp9"),
)
DEFAULT_RATE = Fraction(25)  # frames per second, if the file does not declare a rate
BT709, LIMITED_RANGE = 1, 1  # ITU-T H.273; FFmpeg's AVCOL_RANGE_MPEG


class VideoError(PictureError):
    """A video cannot be used; the message says what is wrong and what is accepted."""


@dataclass(frozen=True)
class VideoLimits:
    """Limits above which a video is rejected.

    Attributes:
        seconds: Maximum duration.
        frames: Maximum number of frames.
        pixels: Maximum number of pixels per frame.
    """

    seconds: float = math.inf
    frames: float = math.inf
    pixels: int = 7680 * 4320


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright.
        pts: Presentation time in units of the video's `time_base`; 0 for the first frame.
        seconds: Presentation time in seconds.
    """

    image: NDArray[np.uint8]
    pts: int
    seconds: float


class Video:
    """A video file opened for reading, see `open_video`.

    Attributes:
        rate: Average number of frames per second.
        time_base: Unit of the presentation times, in seconds.
        frame_count: Estimated number of frames; None if unknown.
        has_sound: Whether there is an audio stream, which is not read.
    """

    def __init__(self, container: InputContainer, name: str, limits: VideoLimits) -> None:
        self._container = container
        self._name = name
        self._limits = limits
        self._stream = self._video_stream()
        self.rate = self._stream.average_rate or DEFAULT_RATE
        self.time_base = self._stream.time_base or 1 / self.rate
        self.has_sound = bool(container.streams.audio)
        seconds = None if container.duration is None else container.duration / 1_000_000
        estimate = None if seconds is None else round(seconds * self.rate)
        self.frame_count = self._stream.frames or estimate
        self._check_length(seconds or 0.0, self._stream.frames)
        self._check_size(self._stream.codec_context.width, self._stream.codec_context.height)

    def frames(self, longer_side: int | None = None) -> Iterator[Frame]:
        """Decode the video; can be called only once.

        Args:
            longer_side: Maximum length of the frames' longer side in pixels; larger frames are
                scaled down. None: no maximum.

        Yields:
            The frames in order, all of the size of the first frame, with square pixels.

        Raises:
            VideoError: If the video is damaged, contains no frame or exceeds the limits.
        """
        start, last, size, number = 0, -1, (0, 0), 0
        for number, frame in enumerate(self._decoded(), 1):
            if number == 1:
                start, size = frame.pts or 0, self._display_size(frame, longer_side)
            gap = max(1, round(1 / (self.rate * self.time_base)))
            last = last + gap if frame.pts is None else max(frame.pts - start, last + 1)
            seconds = float(last * self.time_base)
            self._check_length(seconds, number)
            yield Frame(_to_rgb(frame, size), last, seconds)
        if number == 0:
            raise VideoError(f"{self._name} contains no frames; expected {ACCEPTED}")

    def _video_stream(self) -> VideoStream:
        stream = self._container.streams.best("video")
        if stream is None:
            raise VideoError(f"{self._name} contains no video stream; expected {ACCEPTED}")
        codec = stream.codec_context
        if codec is None or codec.name not in DECODERS:
            raise VideoError(
                f"{self._name} is compressed with {codec.name if codec else 'an unknown codec'}, "
                "which is not supported; convert it to H.264, VP9 or AV1"
            )
        codec.options = {"max_pixels": str(self._limits.pixels)}
        codec.thread_type = "AUTO"
        return stream  # type: ignore[return-value]

    def _decoded(self) -> Iterator[VideoFrame]:
        with _av_errors(self._name):
            for frame in self._container.decode(self._stream):
                self._check_size(frame.width, frame.height)
                yield frame

    def _display_size(self, frame: VideoFrame, longer_side: int | None) -> tuple[int, int]:
        """(width, height) with square pixels, scaled down, before rotation."""
        aspect = self._stream.sample_aspect_ratio or 1
        width, height = float(frame.width * aspect), float(frame.height)
        scale = min(1.0, (longer_side or math.inf) / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))

    def _check_length(self, seconds: float, frames: int) -> None:
        """Enforce the limits; called for each frame, since a header may understate the length."""
        if seconds > self._limits.seconds + 0.5:
            raise VideoError(
                f"{self._name} is longer than {self._limits.seconds:.0f} seconds; trim it first"
            )
        if frames > self._limits.frames:
            raise VideoError(
                f"{self._name} has more than {self._limits.frames:.0f} frames; trim it, or reduce "
                "its frame rate"
            )

    def _check_size(self, width: int, height: int) -> None:
        if not 0 < width * height <= self._limits.pixels:  # 0: rejected by FFmpeg
            size = f"of {width} x {height} pixels" if width else "of an unsupported size"
            raise VideoError(
                f"{self._name} has frames {size}; at most {self._limits.pixels / 1e6:.1f} "
                "megapixels are accepted: scale it down first"
            )


@contextmanager
def open_video(path: Path, limits: VideoLimits | None = None) -> Iterator[Video]:
    """Open an untrusted video file without decoding it.

    Args:
        path: An MP4, MOV, WebM, Matroska or GIF file, detected from its content.
        limits: Limits above which the video is rejected. None: only frames of more than 33
            megapixels are rejected.

    Yields:
        The video; its file is closed at the end of the block.

    Raises:
        VideoError: If the file is not a supported video or exceeds the limits, or if PyAV is not
            installed.
    """
    limits = limits or VideoLimits()
    with _open_container(path, limits.pixels) as container:
        yield Video(container, path.name, limits)


@contextmanager
def _open_container(path: Path, max_pixels: int) -> Iterator[InputContainer]:
    """Open a video file such that FFmpeg cannot open any other file."""
    av = _load_av()
    options = {
        "codec_whitelist": ",".join(DECODERS),
        "protocol_whitelist": "none",
        "max_pixels": str(max_pixels),
    }
    with _open_file(path) as file:
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
    """A video file opened for writing, see `video_writer`."""

    def __init__(self, container: OutputContainer, source: Video, lossless: bool) -> None:
        self._container = container
        self._source = source
        self._lossless = lossless
        self._stream: VideoStream | None = None

    def write(self, image: NDArray[np.uint8], pts: int) -> None:
        """Append a frame.

        Args:
            image: (H, W, 3) uint8 RGB or, for a lossless video, (H, W) uint8. All frames must have
                the same size.
            pts: Presentation time in units of the source's `time_base`.
        """
        frame = self._frame(image)
        frame.pts, frame.time_base = pts, self._source.time_base
        if self._stream is None:
            self._stream = self._new_stream(frame.width, frame.height)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Flush the encoder."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())

    def _frame(self, image: NDArray[np.uint8]) -> VideoFrame:
        from av import VideoFrame

        if self._lossless:
            return VideoFrame.from_ndarray(np.ascontiguousarray(image), format="gray")
        height, width = image.shape[:2]  # yuv420p requires even sizes
        even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        frame = VideoFrame.from_ndarray(even, format="rgb24")
        return frame.reformat(
            format="yuv420p", dst_colorspace="ITU709", dst_color_range=LIMITED_RANGE
        )

    def _new_stream(self, width: int, height: int) -> VideoStream:
        if self._lossless:
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
def video_writer(
    path: Path, source: Video, *, lossless: bool = False, metadata: Mapping[str, str] | None = None
) -> Iterator[VideoWriter]:
    """Create a video file with the timing of another video and no sound.

    Args:
        path: The file, with any suffix. If the block raises, the caller must remove the file.
        source: Video that determines the frame rate and the time base.
        lossless: Write (H, W) frames as Matroska with FFV1, which keeps every value, instead of
            RGB frames as MP4 with H.264.
        metadata: Metadata for the file; MP4 keeps "title" and "comment".

    Yields:
        The writer.

    Raises:
        VideoError: If PyAV is not installed.
        OSError: If the file cannot be written.
    """
    av = _load_av()
    options = {} if lossless else {"movflags": "+faststart"}  # playable while downloading
    kind = "matroska" if lossless else "mp4"
    with av.open(str(path), "w", format=kind, options=options) as container:
        container.metadata.update(metadata or {})
        writer = VideoWriter(container, source, lossless)
        yield writer
        writer.finish()


def read_comment(path: Path) -> str:
    """Read "comment" from a video's metadata; "" if it is missing or the file is not a video."""
    try:
        with _open_container(path, VideoLimits().pixels) as container:
            metadata = {name.lower(): text for name, text in container.metadata.items()}
            return metadata.get("comment", "")  # Matroska stores names in upper case
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
    """Convert PyAV's errors to VideoError."""
    import av

    try:
        yield
    except (av.FFmpegError, OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(
            f"{name} is damaged, truncated or of an unsupported type: {reason}; expected {ACCEPTED}"
        ) from error


def _open_file(path: Path) -> BinaryIO:
    """Open a regular file, with errors that describe the accepted videos."""
    try:
        return open_regular(path)
    except VideoError:
        raise
    except PictureError as error:  # describes the accepted images
        raise VideoError(f"{str(error).partition('; expected')[0]}; expected {ACCEPTED}") from error


def _demuxer(file: BinaryIO, name: str) -> str:
    """Select the demuxer by the file's signature."""
    signature = file.read(12)
    file.seek(0)
    if signature[4:8] in BOXES:
        return "mp4"
    if signature[:4] == EBML:
        return "matroska"
    if signature[:4] == b"GIF8":
        return "gif"
    raise VideoError(f"{name} is not a video of a supported format; expected {ACCEPTED}")


def _refuse_to_open(url: str, *_: Any) -> BinaryIO:
    raise PermissionError(f"access to {url!r} is not allowed")


def _to_rgb(frame: VideoFrame, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Convert a frame to RGB of size (width, height), then rotate it as the file declares."""
    array = frame.reformat(width=size[0], height=size[1], format="rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(array, round(frame.rotation / 90)))
