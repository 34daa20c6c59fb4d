"""The /segment and /compare API endpoints. They have no visible counterpart on the page."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from segmodels.data.image_io import PictureError
from segmodels.demo.components import image_input
from segmodels.demo.http_limits import UPLOAD_FIRST
from segmodels.demo.service import ComparisonService
from segmodels.demo.session import ExpiredError, Session
from segmodels.inference.comparison import ModelFailure, ModelResult, summary

# `ComparisonService.run`
Compute = Callable[[str, Sequence[str], str, Callable[[], bool]], Session]
FAILED = "The network failed on this image; a smaller image may work."


class ApiError(gr.Error):
    """An error returned to the API client. It is not logged."""

    def __init__(self, message: str) -> None:
        super().__init__(message, print_exception=False)


def add_api(service: ComparisonService, compute: Compute) -> None:
    """Add the endpoints to the current `gr.Blocks` context.

    Args:
        service: The service that answers the calls.
        compute: `service.run`, on the GPU if there is one.
    """
    sources = {network.name: network.source for network in service.networks.values()}
    scenes = {scene: service.sources_of(scene, {}) for scene in service.scenes}

    def segment(picture: str | None, model: str) -> Iterator[str]:
        """Segment an image. Returns the class of every pixel as an indexed PNG at full size."""
        if model not in sources:
            raise ApiError(f"Unknown model {model!r}; available models: {', '.join(sources)}.")
        (answer,) = answers(picture, [sources[model]], "")
        if isinstance(answer, ModelFailure):
            raise ApiError(FAILED)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{answer.network.file_name}.png"
            answer.segmentation.save(file)
            yield str(file)

    def compare(picture: str | None, scene: str) -> dict[str, Any]:
        """Compare the networks of a scene on an image. Returns each network's seconds, parameters
        and fraction of the image per class, and the fraction on which all networks agree."""
        if scene not in scenes:
            raise ApiError(f"Unknown scene {scene!r}; available scenes: {', '.join(scenes)}.")
        result = summary(scene, answers(picture, scenes[scene], scene))
        for entry in result["models"].values():
            if "error" in entry:
                entry["error"] = FAILED
        return result

    def answers(
        picture: str | None, sources: Sequence[str], scene: str
    ) -> list[ModelResult | ModelFailure]:
        """Run the networks, turning problems with the image into `ApiError`s."""
        if not picture:
            raise ApiError(f"The picture is missing: {UPLOAD_FIRST}.")
        try:
            if not Path(picture).is_file():
                raise ExpiredError
            return compute(picture, sources, scene, is_wanted).answers(service.network)
        except ExpiredError as error:
            raise ApiError(
                "The picture is no longer on this server: files are deleted a few minutes after "
                "their last use. Upload it again."
            ) from error
        except PictureError as error:
            raise ApiError(str(error)) from error

    with gr.Row(visible=False):
        picture = _uploaded_image()
        model = gr.Textbox(label="model")
        scene = gr.Textbox(next(iter(scenes)), label="scene")
        file, figures, button = gr.File(label="class ids"), gr.JSON(label="metrics"), gr.Button()
    for function, inputs, output, choice in (
        (segment, [picture, model], file, f"Models: {', '.join(sources)}."),
        (compare, [picture, scene], figures, f"Scenes: {', '.join(scenes)}."),
    ):
        text = " ".join((function.__doc__ or "").split())
        button.click(
            function,
            inputs,
            output,
            api_name=function.__name__,
            api_description=f"{text} {choice} For the picture, {UPLOAD_FIRST}.",
            concurrency_id="networks",
        )


def _uploaded_image() -> gr.Image:
    """Create the `picture` input; its API schema describes what is accepted."""
    image = image_input(label="picture")
    schema = image.api_info()
    schema["properties"]["path"]["description"] = "Path returned by POST /gradio_api/upload"
    schema["properties"]["url"]["description"] = "Ignored; URLs and base64 are not accepted"
    image.api_info = lambda: schema  # type: ignore[method-assign]
    return image


def is_wanted() -> bool:
    """Whether the client of the current call is still waiting for its answer."""
    blocks, event = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    if blocks is None or event is None:
        return True
    running = [each for job in blocks._queue.active_jobs if job for each in job]
    return any(each._id == event and each.alive for each in running)
