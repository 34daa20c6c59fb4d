"""The tabs for videos and for the camera."""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict

import gradio as gr

from segmodels.data.image_io import PictureError
from segmodels.demo import html, strings
from segmodels.demo.components import ASSETS, viewer
from segmodels.demo.service import ComparisonService
from segmodels.demo.video import LIMITS, VideoProgress, VideoService
from segmodels.demo.viewer import View
from segmodels.demo.waiting import LANE
from segmodels.hub.checkpoint import CheckpointError

log = logging.getLogger(__name__)

LOOK = 0.3  # seconds between two looks at how far a video is, and whether it is still wanted
RATES = {strings.EVERY_FRAME: 0, "15": 15, "10": 10, "5": 5}  # frames a second
OnGpu = Callable[[Any], Any]


class VideoTab:
    """A video, the networks' masks over it as a video, and how far that is.

    Args:
        service: Knows the networks.
        on_gpu: Wraps what runs networks, where a GPU must be asked for.
    """

    def __init__(self, service: ComparisonService, on_gpu: OnGpu) -> None:
        self.service = service
        self.compare: Callable[..., Iterator[VideoProgress]] = on_gpu(VideoService(service).compare)
        self.is_available = find_spec("av") is not None
        if self.is_available:
            self._lay_out()
        else:
            gr.Markdown(strings.NO_PYAV)

    def _lay_out(self) -> None:
        gr.Markdown(strings.VIDEO_HELP.format(seconds=round(LIMITS.seconds)))
        with gr.Row():
            self.video = gr.Video(
                label="Video", sources=["upload"], height=220, elem_id="video", buttons=[], scale=1
            )
            with gr.Column(scale=1, min_width=220):
                self.rate = gr.Dropdown(
                    list(RATES.items()), value=0, label="Frames a second", elem_id="video-rate"
                )
                self.safe = gr.Checkbox(label=str(strings.VIEWER["safe"]), elem_id="video-safe")
                with gr.Row():
                    self.start = gr.Button(
                        "Segment video", variant="primary", elem_id="video-start"
                    )
                    self.stop = gr.Button("Stop", elem_id="video-stop")
        self.note = gr.HTML(elem_classes="slot", elem_id="video-note")
        self.result = gr.Video(
            label="Masks, side by side",
            height=480,
            interactive=False,
            autoplay=True,
            loop=True,
            buttons=["download"],
            elem_id="video-result",
        )

    def wire(self, scene: gr.Radio, replacements: gr.State) -> None:
        """What happens when something is used. replacements: see `ComparisonService.sources_of`."""
        if not self.is_available:
            return
        running = self.start.click(
            self.run,
            [self.video, scene, replacements, self.rate, self.safe],
            [self.result, self.note],
            show_progress="hidden",
            concurrency_id="video",
            api_visibility="private",
        )
        gr.on(
            [self.stop.click, self.video.clear],
            lambda: html.notice(strings.VIDEO_STOPPED),
            None,
            self.note,
            cancels=[running],
            queue=False,
            api_visibility="private",
        )

    def run(
        self,
        path: str | None,
        scene: str,
        replacements: dict[str, str],
        rate: float,
        safe: bool,
    ) -> Iterator[tuple[Any, str]]:
        """The result's file and the note, as they change."""
        try:
            if path is None or not Path(path).is_file():
                raise PictureError(strings.NO_VIDEO)
            sources = self.service.sources_of(scene, replacements)
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / f"{Path(path).stem}_masks.mp4"
                yield None, html.notice(strings.VIDEO_STARTS)
                looked, progress = time.monotonic(), None
                for progress in self.compare(path, str(out), sources, rate or None, bool(safe)):
                    if time.monotonic() - looked > LOOK:
                        looked = time.monotonic()
                        yield gr.skip(), _progress(progress)
                yield str(out), html.notice(strings.video_done(progress))
        except (PictureError, CheckpointError) as error:
            yield None, html.notice(str(error), problem=True)
        except Exception:
            log.exception("a video failed")
            yield None, html.notice(strings.VIDEO_FAILED, problem=True)


def _progress(progress: VideoProgress) -> str:
    total = progress.total or 0
    bar = f'<progress value="{progress.done}" max="{max(total, progress.done)}"></progress>'
    return html.notice(strings.video_progress(progress)) + (bar if total else "")


class CameraAnswer(TypedDict):
    """What the server answers to a frame, by its number. problem: why there is no mask."""

    number: int
    problem: str


class CameraTab:
    """The camera's frames and one network's masks over them, at the rate that the server gives:
    assets/camera.js sends a frame when the last one is answered.

    Args:
        service: Knows the networks.
        on_gpu: Wraps what runs networks, where a GPU must be asked for.
    """

    def __init__(self, service: ComparisonService, on_gpu: OnGpu) -> None:
        self.segment_frame: Callable[[str, str], View] = on_gpu(VideoService(service).segment_frame)
        networks = [(f"{n.title} ({n.name})", n.source) for n in service.networks.values()]
        gr.Markdown(strings.CAMERA_HELP)
        self.network = gr.Dropdown(
            networks, value=networks[0][1], label="Network", elem_id="camera-network"
        )
        self.camera = gr.HTML(
            html_template='<div class="viewer"><div class="camera"></div></div>',
            js_on_load=(ASSETS / "camera.js").read_text(encoding="utf-8"),
            apply_default_css=False,
            labels=strings.CAMERA,
            elem_id="camera",
        )
        self.view = viewer(elem_id="camera-view")

    def wire(self) -> None:
        """What happens when the camera gives a frame."""
        self.camera.submit(
            self.answer_frame,
            self.network,
            [self.view, self.camera],
            show_progress="hidden",
            trigger_mode="multiple",
            concurrency_id=LANE,
            api_visibility="private",
        )

    def answer_frame(self, source: str, event: gr.EventData) -> tuple[Any, CameraAnswer]:
        """The mask of the event's frame, or what is wrong with it."""
        number = event.number if isinstance(event.number, int) else 0
        try:
            return self.segment_frame(event.image, source), {"number": number, "problem": ""}
        except (PictureError, CheckpointError) as error:
            return gr.skip(), {"number": number, "problem": str(error)}
        except Exception:
            log.exception("a frame of a camera failed")
            return gr.skip(), {"number": number, "problem": strings.CAMERA_FAILED}
