"""Custom components that Gradio does not provide."""

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData

from segmodels.demo import html, strings

ASSETS = Path(__file__).resolve().parent / "assets"
CSS = ASSETS / "page.css"


def viewer(**options: Any) -> gr.HTML:
    """Create a viewer that shows maps over an image side by side, rendered by assets/viewer.js.

    Its value is a `viewer.View` or None. `select` reports what a panel's controls request. (This
    is not a subclass because Gradio would write a .pyi file next to this module.)
    """
    return gr.HTML(
        html_template='<div class="viewer" hidden></div>',
        js_on_load=_script("viewer.js"),
        apply_default_css=False,
        figures=figures(),
        **options,
    )


def example_strip(**options: Any) -> gr.HTML:
    """Create the strip of thumbnails, rendered by assets/examples.js.

    It shows the example images and the visitor's latest images, which are kept only in the
    browser. Its value is a list of `page.Thumbnail`. `select` reports the key of the chosen
    example.
    """
    return gr.HTML(
        html_template='<div class="strip"></div>',
        js_on_load=_script("examples.js"),
        apply_default_css=False,
        labels=strings.STRIP,
        **options,
    )


def image_input(**options: Any) -> gr.Image:
    """Create an image input that passes on the uploaded file unchanged.

    `read_image` validates and decodes the file and explains what is wrong with it; Gradio's own
    check reports a bad file as a bare "Error". As an output, the component must be given values,
    not updates: on an update, Gradio creates a new component without this override.
    """
    image = gr.Image(type="filepath", **options)

    def path_of(payload: ImageData | None) -> str | None:
        return None if payload is None else payload.path

    image.preprocess = path_of  # type: ignore[method-assign]
    return image


def figures() -> dict[str, str]:
    """Return the drawing of each architecture as HTML, by architecture name."""
    return {
        name: html.figure(ASSETS / f"{name}.svg", alt) for name, alt in strings.FIGURE_ALTS.items()
    }


def _script(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
