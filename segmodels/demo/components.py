"""Two components of the page that Gradio does not have."""

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData

ASSETS = Path(__file__).resolve().parent / "assets"
CSS = ASSETS / "page.css"


def viewer(**options: Any) -> gr.HTML:
    """Maps over a picture, side by side, painted in the browser by assets/viewer.js. Its value is a
    `viewer.View`, or None. (A subclass would make Gradio write a .pyi file beside this one.)"""
    return gr.HTML(
        html_template='<div class="viewer" hidden></div>',
        js_on_load=(ASSETS / "viewer.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        **options,
    )


def picture_input(**options: Any) -> gr.Image:
    """An image whose file is handed on as it came: `read_picture` checks and decodes it, and says
    what is wrong with it. (gradio's own check would answer a bad file with a bare "Error".) As an
    output it must get values: an update would make gradio build it anew, without this."""
    image = gr.Image(type="filepath", **options)

    def path_of(payload: ImageData | None) -> str | None:
        return None if payload is None else payload.path

    image.preprocess = path_of  # type: ignore[method-assign]
    return image
