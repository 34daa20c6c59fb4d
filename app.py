"""The page: FCN, U-Net and SegNet side by side on the visitor's own picture.

`python app.py`, or `segmodels demo`. It serves the networks in weights_card/, or those that the
environment variable SEGMODELS_MODELS names (Hub ids or folders, comma-separated).
"""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData
from PIL import Image

from segmodels import CheckpointError, PictureError, Segmentation, draw, server
from segmodels.compare import (
    Network,
    by_scene,
    compare,
    load_networks,
    served_sources,
    summary,
)

HERE = Path(__file__).resolve().parent
EXAMPLES = ["avenue.jpg", "street.jpg", "crossing.jpg", "highway.jpg", "cyclists.jpg"]
DISPLAY_SIZE = 1280  # longer side of the masks on the page, pixels; downloads are full size
MAX_PIXELS = 50_000_000
MAX_UPLOAD = 30_000_000  # bytes
KEPT_SECONDS = 600  # uploads and results are deleted after so long
QUEUE_SIZE = 20

TITLE = "FCN, U-Net and SegNet, side by side"
INTRODUCTION = f"""
# {TITLE}
Three classic networks of semantic segmentation name the class of every pixel. Where do they agree,
and where does one of them blur a pole or lose a pedestrian? Choose a street picture, or take one.
"""
FOOTER = """
The networks start from VGG16's ImageNet weights and were trained on the 367 training pictures of
CamVid: streets of Cambridge, seen from a car. What is in none of those pictures they cannot name.
Your picture is segmented on this server, shown to nobody else, and deleted within minutes.
"""


def build_page(networks: list[Network]) -> gr.Blocks:
    """The page for these networks, and the named endpoints of its API."""
    scenes = by_scene(networks)
    first = next(iter(scenes.values()))

    with gr.Blocks(title=TITLE, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                picture = picture_input(
                    label="Picture",
                    sources=["upload", "clipboard", "webcam"],
                    height=320,
                    elem_id="picture",
                    alt_text="The picture to segment",
                )
            with gr.Column(scale=2, min_width=300):
                gr.Examples(
                    [[str(HERE / "examples" / name)] for name in EXAMPLES],
                    inputs=picture,
                    label="Street pictures to try",
                    elem_id="examples",
                )
                scene = gr.Radio(
                    list(scenes), value=first[0].scene, label="Scene", visible=len(scenes) > 1
                )
                opacity = gr.Slider(0, 1, value=0.6, step=0.05, label="Opacity of the masks")
                button = gr.Button("Compare", variant="primary", elem_id="compare")
        legend = gr.HTML(draw.legend(first[0].segmenter.model), elem_id="legend")
        with gr.Row(elem_id="panels"):
            panels = [panel(network) for network in max(scenes.values(), key=len)]
        areas = gr.HTML(elem_id="areas")
        gr.Markdown(FOOTER)
        masks = gr.State([])  # at display size, for the opacity slider
        images = [image for image, _, _ in panels]

        def run(path: str | None, scene: str, opacity: float) -> Iterator[dict[Any, Any]]:
            empty = [empty_panel(network) for network in scenes[scene]]
            for parts, values in zip(panels, empty, strict=False):
                yield dict(zip(parts, values, strict=True))
            yield {legend: draw.legend(scenes[scene][0].segmenter.model), areas: "", masks: []}
            for number, values in stream(scenes[scene], path, opacity):
                yield dict(zip([*panels[number], areas, masks], values, strict=True))

        gr.on(
            [picture.change, button.click],
            run,
            [picture, scene, opacity],
            [*(part for parts in panels for part in parts), legend, areas, masks],
            concurrency_id="networks",
            show_progress_on=images,
            api_visibility="private",
        )
        button.click(remind, picture, api_visibility="private")
        opacity.release(repaint, [masks, opacity], images, api_visibility="private")
        add_api(scenes)
    return page


def picture_input(**options: Any) -> gr.Image:
    """An image whose file is handed on as it came: `read_picture` checks and decodes it, and says
    what is wrong with it. (gradio's own check would answer a bad file with a bare "Error".)"""
    image = gr.Image(type="filepath", **options)

    def path_of(payload: ImageData | None) -> str | None:
        return None if payload is None else payload.path

    image.preprocess = path_of  # type: ignore[method-assign]
    return image


def panel(network: Network) -> tuple[gr.Image, gr.HTML, gr.DownloadButton]:
    """One network's place: its mask over the picture, its figures, its class ids to take away."""
    with gr.Column(min_width=280):
        image = gr.Image(
            label=network.title,
            format="png",
            interactive=False,
            buttons=["fullscreen"],
            elem_classes="panel",
            alt_text=f"The mask of {network.title} over the picture",
        )
        figures = gr.HTML(draw.caption(network, None))
        download = gr.DownloadButton("Class ids (PNG)", size="sm", interactive=False)
    return image, figures, download


def empty_panel(network: Network) -> tuple[gr.Image, str, gr.DownloadButton]:
    """What a panel holds before its network is ready."""
    image = gr.Image(None, label=network.title)
    return image, draw.caption(network, None), gr.DownloadButton(interactive=False)


def stream(
    networks: list[Network], path: str | None, opacity: float
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Network by network, as each is ready: the number of its panel, and what goes there, into
    the table of areas and into the masks."""
    if path is None:
        return
    results, masks = [], []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for number, result in enumerate(compare(networks, path, max_pixels=MAX_PIXELS)):
                results.append(result)
                masks.append(result.segmentation.scaled(DISPLAY_SIZE))
                file = Path(folder) / f"{Path(path).stem}_{result.network.name}.png"
                result.segmentation.save(file)
                yield (
                    number,
                    (
                        masks[-1].overlay(opacity),
                        draw.caption(result.network, result.seconds),
                        gr.DownloadButton(value=str(file), interactive=True),
                        draw.areas_table(networks, results),
                        masks,
                    ),
                )
        except PictureError as error:
            gr.Warning(f"This picture cannot be used: {error}")


def remind(path: str | None) -> None:
    if path is None:
        gr.Warning("Choose a picture first: drop one on the page, or take an example.")


def repaint(masks: list[Segmentation], opacity: float) -> list[Image.Image | None]:
    """The masks on the page at another opacity."""
    images: list[Image.Image | None] = [mask.overlay(opacity) for mask in masks]
    return images or gr.skip()


def add_api(scenes: Mapping[str, list[Network]]) -> None:
    """/segment and /compare, for programs: no part of the page shows them."""
    networks = {network.name: network for group in scenes.values() for network in group}

    def segment(picture: str, model: str) -> Iterator[str]:
        """The picture's class-id PNG, exact, at its own size."""
        if model not in networks:
            raise gr.Error(f"There is no model {model!r}; there are {', '.join(networks)}.")
        with tempfile.TemporaryDirectory() as folder:
            for result in answers([networks[model]], picture):
                file = Path(folder) / f"{model}.png"
                result.segmentation.save(file)
                yield str(file)

    def compare_(picture: str, scene: str) -> dict[str, Any]:
        """Sizes, seconds, areas per class, and the share of the picture on which all agree."""
        if scene not in scenes:
            raise gr.Error(f"There is no scene {scene!r}; there are {', '.join(scenes)}.")
        return summary(scene, list(answers(scenes[scene], picture)))

    with gr.Row(visible=False):
        pictures = picture_input(label="picture")
        model, scene = gr.Textbox(label="model"), gr.Textbox(next(iter(scenes)), label="scene")
        file, answer, button = gr.File(), gr.JSON(), gr.Button()
    for function, inputs, output in (
        (segment, [pictures, model], file),
        (compare_, [pictures, scene], answer),
    ):
        button.click(
            function,
            inputs,
            output,
            api_name=function.__name__.strip("_"),
            concurrency_id="networks",
        )


def answers(networks: list[Network], picture: str | None) -> Iterator[Any]:
    """`compare` for a program: what is wrong with the picture becomes the answer."""
    try:
        yield from compare(networks, picture or "", max_pixels=MAX_PIXELS)
    except PictureError as error:
        raise gr.Error(str(error)) from error


def main(host: str | None = None, port: int | None = None) -> None:
    """Load the networks and serve the page until it is stopped."""
    server.prepare(MAX_PIXELS)
    try:
        networks = load_networks(served_sources(HERE / "weights_card"))
    except CheckpointError as error:
        raise SystemExit(f"segmodels: {error}") from error
    page = build_page(networks)
    page.queue(max_size=QUEUE_SIZE, default_concurrency_limit=1, api_open=False)
    server.serve(
        page,
        max_upload=MAX_UPLOAD,
        server_name=host,
        server_port=port,
        css=draw.CSS,
        theme=gr.themes.Default(),
        ssr_mode=False,
        enable_monitoring=False,
        run_history=False,
    )


if __name__ == "__main__":
    main()
