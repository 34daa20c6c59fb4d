"""Components of the page that Gradio does not have."""

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData

from segmodels.demo import html, strings

ASSETS = Path(__file__).resolve().parent / "assets"
CSS = ASSETS / "page.css"


def viewer(**options: Any) -> gr.HTML:
    """Maps over an image, side by side, painted in the browser by assets/viewer.js. Its value is a
    `viewer.View`, or None; `select` tells the number of a panel that is to be downloaded. (A
    subclass would make Gradio write a .pyi file beside this one.)"""
    return gr.HTML(
        html_template='<div class="viewer" hidden></div>',
        js_on_load=_script("viewer.js"),
        apply_default_css=False,
        figures=figures(),
        **options,
    )


def example_strip(**options: Any) -> gr.HTML:
    """Thumbnails of example images, and of the last images of the visit, which the browser alone
    keeps; by assets/examples.js. Its value is a list of `page.Thumbnail`; `select` tells the key of
    the example that was chosen."""
    return gr.HTML(
        html_template='<div class="strip"></div>',
        js_on_load=_script("examples.js"),
        apply_default_css=False,
        labels=strings.STRIP,
        **options,
    )


def image_input(**options: Any) -> gr.Image:
    """An image whose file is handed on as it came: `read_image` checks and decodes it, and says
    what is wrong with it. (Gradio's own check would answer a bad file with a bare "Error".) As an
    output it must get values: an update would make Gradio build it anew, without this."""
    image = gr.Image(type="filepath", **options)

    def path_of(payload: ImageData | None) -> str | None:
        return None if payload is None else payload.path

    image.preprocess = path_of  # type: ignore[method-assign]
    return image


def figures() -> dict[str, str]:
    """The drawing of each architecture, as HTML, by the architecture's name."""
    return {
        name: html.figure(ASSETS / f"{name}.svg", alt) for name, alt in strings.FIGURE_ALTS.items()
    }


def _script(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
