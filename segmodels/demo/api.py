"""/segment and /compare, for programs: no part of the page shows them."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from segmodels.data.image_io import PictureError
from segmodels.demo.components import image_input
from segmodels.demo.service import ComparisonService
from segmodels.demo.session import Session
from segmodels.inference.comparison import ModelFailure, summary

Compute = Callable[[str, Sequence[str], str], Session]  # `ComparisonService.run`


def add_api(service: ComparisonService, compute: Compute) -> None:
    """The endpoints, within a gr.Blocks. compute: `service.run`, on the GPU where there is one."""
    sources = {network.name: network.source for network in service.networks.values()}
    scenes = {scene: service.sources_of(scene, {}) for scene in service.scenes}

    def segment(picture: str, model: str) -> Iterator[str]:
        """Segment a picture: the class of every pixel as an indexed PNG of the picture's own size.

        Args:
            picture: the picture file.
            model: the network's name, "unet-camvid" for example.
        """
        if model not in sources:
            raise gr.Error(f"There is no model {model!r}; there are {', '.join(sources)}.")
        (answer,) = answers(picture, [sources[model]], "")
        if isinstance(answer, ModelFailure):
            raise gr.Error(answer.reason)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{model}.png"
            answer.segmentation.save(file)
            yield str(file)

    def compare(picture: str, scene: str) -> dict[str, Any]:
        """Compare the networks of a scene on a picture: seconds, parameters, the share of the
        picture that each gives to each class, and the share on which all agree.

        Args:
            picture: the picture file.
            scene: "road" or "everyday".
        """
        if scene not in scenes:
            raise gr.Error(f"There is no scene {scene!r}; there are {', '.join(scenes)}.")
        return summary(scene, answers(picture, scenes[scene], scene))

    def answers(picture: str | None, sources: Sequence[str], scene: str) -> list[Any]:
        """What is wrong with the picture becomes the answer."""
        try:
            return compute(picture or "", sources, scene).answers(service.network)
        except PictureError as error:
            raise gr.Error(str(error)) from error

    with gr.Row(visible=False):
        pictures = image_input(label="picture")
        model, scene = gr.Textbox(label="model"), gr.Textbox(next(iter(scenes)), label="scene")
        file, figures, button = gr.File(label="class ids"), gr.JSON(label="figures"), gr.Button()
    for function, inputs, output in (
        (segment, [pictures, model], file),
        (compare, [pictures, scene], figures),
    ):
        button.click(
            function,
            inputs,
            output,
            api_name=function.__name__,
            concurrency_id="networks",
        )
