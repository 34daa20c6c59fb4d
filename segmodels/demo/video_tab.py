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

LOOK = 0.3  # seconds between progress updates, at which a cancelled run also stops
RATES = {strings.EVERY_FRAME: 0, "15": 15, "10": 10, "5": 5}  # frames per second
OnGpu = Callable[[Any], Any]


class VideoTab:
    """The tab that segments a video and shows the progress and the resulting video.

    Args:
        service: The service that provides the networks.
        on_gpu: Decorator for functions that run networks, used where a GPU must be requested.
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
                    list(RATES.items()), value=0, label="Frames per second", elem_id="video-rate"
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
        """Attach the event handlers.

        Args:
            scene: The choice of scene.
            replacements: The replaced networks, as in `ComparisonService.sources_of`.
        """
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
        light: dict[str, Any] = {"queue": False, "api_visibility": "private"}
        stopping = gr.on(
            [self.stop.click, self.video.clear],
            lambda: None,
            None,
            None,
            cancels=[running],
            **light,
        )
        # Afterwards, since the last progress may arrive while the run is being cancelled.
        stopping.then(lambda: html.notice(strings.VIDEO_STOPPED), None, self.note, **light)

    def run(
        self,
        path: str | None,
        scene: str,
        replacements: dict[str, str],
        rate: float,
        safe: bool,
    ) -> Iterator[tuple[Any, str]]:
        """Segment a video. Yields updates of the result's file and of the note."""
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
            log.exception("could not segment a video")
            yield None, html.notice(strings.VIDEO_FAILED, problem=True)


def _progress(progress: VideoProgress) -> str:
    total = progress.total or 0
    bar = f'<progress value="{progress.done}" max="{max(total, progress.done)}"></progress>'
    return html.notice(strings.video_progress(progress)) + (bar if total else "")


class CameraAnswer(TypedDict):
    """The server's answer to a camera frame.

    Attributes:
        number: Number of the frame.
        problem: Why there is no mask; "" if there is one.
    """

    number: int
    problem: str


class CameraTab:
    """The tab that shows one network's masks over live camera frames.

    assets/camera.js sends the next frame when the previous one has been answered, so the server
    determines the frame rate.

    Args:
        service: The service that provides the networks.
        on_gpu: Decorator for functions that run networks, used where a GPU must be requested.
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
        """Attach the handler for camera frames."""
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
        """Return the mask of the event's frame, or a description of the problem."""
        number = event.number if isinstance(event.number, int) else 0
        try:
            return self.segment_frame(event.image, source), {"number": number, "problem": ""}
        except (PictureError, CheckpointError) as error:
            return gr.skip(), {"number": number, "problem": str(error)}
        except Exception:
            log.exception("could not segment a camera frame")
            return gr.skip(), {"number": number, "problem": strings.CAMERA_FAILED}
