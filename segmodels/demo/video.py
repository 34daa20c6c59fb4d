"""Segmentation of videos and camera frames for the page."""

import base64
import binascii
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from segmodels.data.image_io import PictureError, read_image
from segmodels.data.video_io import Frame, Video, VideoError, VideoLimits, open_video, video_writer
from segmodels.demo import strings, viewer
from segmodels.demo.downloads import PANORAMA
from segmodels.demo.service import ComparisonService
from segmodels.demo.viewer import View
from segmodels.inference.comparison import (
    ModelFailure,
    ModelResult,
    ServedModel,
    compare,
)
from segmodels.inference.video import decoded
from segmodels.utils.contact_sheet import LegendEntry, SheetStyle, Tile, contact_sheet
from segmodels.utils.files import atomic_write
from segmodels.utils.palette import is_background, safe_palette

LIMITS = VideoLimits(seconds=20, frames=1250, pixels=4096 * 2304)
MAX_WORK = 600.0  # maximum processing time of a video in seconds
FIRST_FRAMES = 5  # number of frames after which the remaining time is estimated
WIDTH = 1920  # width of the result in pixels
PANEL_SIZE = 640  # longer side of a panel in pixels
STYLE = SheetStyle(margin=12, gap=8, label_size=18, small_size=15)

JPEG_URL = "data:image/jpeg;base64,"
MAX_FRAME_URL = 700_000  # characters
MAX_FRAME_PIXELS = 1_000_000

Palette = dict[str, list[int]]


@dataclass(frozen=True)
class VideoProgress:
    """The progress of a video.

    Attributes:
        done: Number of frames done.
        total: Expected number of frames; None if the file does not specify it.
        seconds_left: Estimated remaining time; None if there is no estimate yet.
        has_sound: Whether the video has sound, which is missing from the result.
    """

    done: int
    total: int | None
    seconds_left: float | None
    has_sound: bool


class VideoService:
    """Segments videos and camera frames with the networks of a page.

    Args:
        service: The service that provides the networks.
    """

    def __init__(self, service: ComparisonService) -> None:
        self.service = service

    def compare(
        self, path: str, out: str, sources: Sequence[str], rate: float | None, safe: bool
    ) -> Iterator[VideoProgress]:
        """Write an MP4 that shows the networks' overlays of a video side by side.

        Args:
            path: The video file.
            out: The file to write; complete when the iterator is exhausted.
            sources: Sources of the networks.
            rate: Maximum frames per second; None for all frames.
            safe: Whether to use the colour-blind-safe palette.

        Yields:
            The progress after each frame.

        Raises:
            VideoError: If the video cannot be used, or would take too long.
        """
        networks = [self.service.network(source) for source in sources]
        palettes = [_palette(network, networks, safe) for network in networks]
        with (
            open_video(Path(path), LIMITS) as video,
            atomic_write(Path(out)) as scratch,
            video_writer(scratch, video) as writer,
        ):
            total = _expected(video, rate)
            start = time.monotonic()
            for done, (frame, answers) in enumerate(_answers(video, networks, rate), 1):
                writer.write(np.asarray(_sheet(frame, answers, palettes)), frame.pts)
                left = _seconds_left(time.monotonic() - start, done, total)
                yield VideoProgress(done, total, left, video.has_sound)

    def segment_frame(self, url: str, source: str) -> View:
        """Segment a camera frame with one network.

        Args:
            url: Data URL of a JPEG.
            source: Source of the network.

        Raises:
            PictureError: If the URL does not contain a valid JPEG.
        """
        network = self.service.network(source)
        image = _read_jpeg(url)
        start = time.perf_counter()
        segmentation = network.segmenter(image)
        seconds = time.perf_counter() - start
        panel = viewer.class_panel(segmentation, network.title, strings.caption(network, seconds))
        size = (image.height, image.width)
        legend = viewer.class_legend([network])
        shown = ("overlay", "map", "image")
        return viewer.view(viewer.image_url(image), size, [panel], legend=legend, views=shown)


# ---- videos ----


def _answers(
    video: Video, networks: Sequence[ServedModel], rate: float | None
) -> Iterator[tuple[Frame, list[ModelResult | ModelFailure]]]:
    """Yield each shown frame with the answers of the networks. A network that fails is skipped from
    then on.

    Raises:
        VideoError: If all networks have failed.
    """
    failures: dict[str, ModelFailure] = {}
    size = max(160, min(PANEL_SIZE, WIDTH // len(networks)))
    for frame in thinned(video.frames(size), rate):
        running = [network for network in networks if network.source not in failures]
        found = {answer.network.source: answer for answer in compare(running, decoded(frame))}
        failures |= {s: a for s, a in found.items() if isinstance(a, ModelFailure)}
        if len(failures) == len(networks):
            raise VideoError(strings.VIDEO_FAILED)
        yield frame, [(found | failures)[network.source] for network in networks]


def thinned(frames: Iterable[Frame], rate: float | None) -> Iterator[Frame]:
    """Yield at most `rate` frames per second, keeping their timestamps."""
    due = 0.0
    for frame in frames:
        if rate is None or frame.seconds > due - 1e-6:
            yield frame
            due = 0.0 if rate is None else (math.floor(frame.seconds * rate + 1e-6) + 1) / rate


def _expected(video: Video, rate: float | None) -> int | None:
    """Return the number of frames to show, or None if the file does not specify it."""
    if video.frame_count is None or rate is None:
        return video.frame_count
    return math.ceil(video.frame_count * min(1.0, rate / float(video.rate)))


def _seconds_left(seconds: float, done: int, total: int | None) -> float | None:
    """Estimate the remaining time; None if there is no estimate yet.

    Raises:
        VideoError: If the video takes longer than `MAX_WORK` in total.
    """
    if total is None or done < FIRST_FRAMES:
        if seconds > MAX_WORK:
            raise VideoError(strings.video_too_slow(None))
        return None
    left = seconds / done * max(0, total - done)
    if seconds + left > MAX_WORK:
        raise VideoError(strings.video_too_slow(seconds + left))
    return left


def _palette(network: ServedModel, networks: Sequence[ServedModel], safe: bool) -> Palette:
    """Return the network's colours by class; the safe colours are shared by all networks."""
    if not safe:
        return dict(zip(network.model.class_names, network.model.palette, strict=True))
    names = list(dict.fromkeys(name for each in networks for name in each.model.class_names))
    return dict(zip(names, safe_palette(names), strict=True))


def _sheet(
    frame: Frame,
    answers: Sequence[ModelResult | ModelFailure],
    palettes: Sequence[Mapping[str, list[int]]],
) -> Image.Image:
    """Compose the overlays and the legend: side by side, or stacked for panoramas."""
    height, width = frame.image.shape[:2]
    tiles = []
    for answer, palette in zip(answers, palettes, strict=True):
        if isinstance(answer, ModelFailure):
            blank = Image.fromarray(frame.image)
            tiles.append(Tile(blank, answer.network.title, strings.FRAME_FAILED))
        else:
            names = answer.segmentation.class_names
            colored = replace(answer.segmentation, palette=[palette[name] for name in names])
            tiles.append(Tile(colored.overlay(viewer.OPACITY), answer.network.title))
    rows = [[tile] for tile in tiles] if width >= PANORAMA * height else [tiles]
    return contact_sheet(rows, legend=_legend(palettes), style=STYLE)


def _legend(palettes: Sequence[Mapping[str, list[int]]]) -> list[LegendEntry]:
    """Return all classes of the networks except background, present in the frame or not."""
    named = [(name, tuple(color)) for palette in palettes for name, color in palette.items()]
    return [entry for entry in dict.fromkeys(named) if not is_background(entry[0])]


# ---- camera ----


def _read_jpeg(url: str) -> Image.Image:
    """Decode a JPEG data URL to RGB, through a temporary file that is validated like an upload."""
    if not isinstance(url, str) or not url.startswith(JPEG_URL) or len(url) > MAX_FRAME_URL:
        raise PictureError(f"expected a camera frame as {JPEG_URL}... of up to 0.5 MB")
    try:
        data = base64.b64decode(url.removeprefix(JPEG_URL), validate=True)
    except binascii.Error as error:
        raise PictureError("the frame is not valid base64") from error
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "frame.jpg"
        file.write_bytes(data)
        return read_image(file, max_pixels=MAX_FRAME_PIXELS)
