"""The page: FCN, U-Net and SegNet side by side on the visitor's own picture.

`python app.py`, or `segmodels demo`. It serves the networks in weights_card/, or those that the
environment variable SEGMODELS_MODELS names (Hub ids or folders, comma-separated).
"""

import functools
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr

from segmodels import CheckpointError
from segmodels.demo import html, server, strings
from segmodels.demo.api import add_api
from segmodels.demo.callbacks import CLEARED, FILLED_WHEN_OPEN, Callbacks
from segmodels.demo.components import ASSETS, CSS, picture_input, viewer
from segmodels.demo.service import MAX_PIXELS, ComparisonService
from segmodels.demo.user_models import MAX_BYTES
from segmodels.inference.comparison import ServedModel, load_networks, served_sources

HERE = Path(__file__).resolve().parent
EXAMPLES = {
    "road": ["avenue.jpg", "crossing.jpg", "street.jpg", "highway.jpg", "cyclists.jpg"],
    "everyday": ["cat.jpg", "astronaut.jpg"],
}
MAX_UPLOAD = 30_000_000  # bytes
KEPT_SECONDS = 600  # uploads and results are deleted after so long
QUEUE_SIZE = 20
SAMPLES = 8

# On a ZeroGPU Space; imported before anything touches CUDA.
spaces = import_module("spaces") if find_spec("spaces") else None
on_gpu = spaces.GPU if spaces else lambda function: function


def build_page(networks: list[ServedModel]) -> gr.Blocks:
    """The page for these networks, and the named endpoints of its API."""
    service = ComparisonService(networks, HERE / "examples")
    with gr.Blocks(title=strings.TITLE, delete_cache=(60, KEPT_SECONDS)) as page:
        gr.Markdown(strings.INTRODUCTION)
        Page(service).wire(page)
        add_api(service, on_gpu(service.run))
    return page


class Page:
    """The page's components from top to bottom, and what happens when they are used."""

    def __init__(self, service: ComparisonService) -> None:
        self.service = service
        self.session = gr.State(time_to_live=KEPT_SECONDS)  # a Session, once there is one
        self.replacements = gr.State({})  # Hub id by the name of the network that it replaces
        self.open_tab = gr.State("areas")
        self.filled = gr.State([])  # tabs that show what belongs to the session
        scene = next(iter(service.scenes))
        first = EXAMPLES.get(scene, EXAMPLES["road"])[0]
        self.callbacks = Callbacks(service, HERE / "examples" / first, on_gpu)
        self.lay_out_input()
        self.masks = viewer(elem_id="masks")
        self.tabs: dict[str, gr.Tab] = {}
        with gr.Tabs(elem_id="tabs"):
            self.lay_out_insights()
            self.lay_out_truth()
            self.lay_out_downloads()
            self.lay_out_networks()

    def lay_out_input(self) -> None:
        scenes = list(self.service.scenes)
        with gr.Row(elem_id="input"):
            with gr.Column(scale=2, min_width=280):
                self.picture = picture_input(
                    label="Picture",
                    sources=["upload", "clipboard", "webcam"],
                    height=250,
                    elem_id="picture",
                    alt_text="The picture to segment",
                )
            with gr.Column(scale=3, min_width=280):
                self.scene = gr.Radio(
                    [(strings.SCENE_NAMES[scene], scene) for scene in scenes],
                    value=scenes[0],
                    label="Scene",
                    visible=len(scenes) > 1,
                    elem_id="scene",
                )
                self.scene_note = gr.Markdown(strings.SCENES[scenes[0]], elem_id="scene-note")
                self.examples = [self.lay_out_examples(scene) for scene in scenes]
                self.button = gr.Button("Compare", variant="primary", elem_id="compare")
                gr.Markdown(strings.PRIVACY.format(minutes=KEPT_SECONDS // 60), elem_id="privacy")
        self.picture_note = gr.HTML(elem_classes="slot")

    def lay_out_examples(self, scene: str) -> gr.Column:
        first = next(iter(self.service.scenes))
        names = EXAMPLES.get(scene, EXAMPLES["road"])
        with gr.Column(visible=scene == first) as column:
            gr.Examples(
                [[str(HERE / "examples" / name)] for name in names],
                inputs=self.picture,
                label="Pictures to try",
                elem_id=f"examples-{scene}",
            )
        return column

    def tab(self, name: str) -> gr.Tab:
        self.tabs[name] = gr.Tab(strings.TABS[name], id=name)
        return self.tabs[name]

    def lay_out_insights(self) -> None:
        with self.tab("areas"):
            self.areas = gr.HTML(elem_id="areas")
        with self.tab("agreement"):
            gr.Markdown(strings.AGREEMENT_HELP)
            self.agreement = viewer(elem_id="agreement")
        with self.tab("confidence"):
            gr.Markdown(strings.CONFIDENCE_HELP)
            self.heat_note = gr.HTML(elem_classes="slot")
            self.heat = viewer(elem_id="confidence")
        with self.tab("skips"):
            gr.Markdown(strings.SKIPS_HELP)
            self.skips_note = gr.HTML(elem_classes="slot")
            self.stages = viewer(elem_id="skips")
        with self.tab("uncertainty"):
            gr.Markdown(strings.UNCERTAINTY_HELP)
            with gr.Row():
                self.samples = gr.Slider(2, 40, value=SAMPLES, step=1, label="Samples", scale=3)
                self.sample = gr.Button("Draw samples", elem_id="sample", scale=1)
            self.uncertainty_note = gr.HTML(elem_classes="slot")
            self.variance = viewer(elem_id="uncertainty")

    def lay_out_truth(self) -> None:
        with self.tab("truth"):
            example = strings.TRUTH_EXAMPLE if self.service.labels else ""
            gr.Markdown(f"{strings.TRUTH_HELP} {example}")
            self.label = picture_input(
                label="Label picture",
                sources=["upload", "clipboard"],
                height=160,
                elem_id="label",
                alt_text="The label picture",
            )
            self.truth_note = gr.HTML(elem_classes="slot")
            self.errors = viewer(elem_id="errors")
            self.iou = gr.HTML(elem_id="iou")

    def lay_out_downloads(self) -> None:
        with self.tab("downloads"):
            gr.Markdown(strings.DOWNLOADS_HELP)
            self.downloads_note = gr.HTML(elem_classes="slot")
            with gr.Row():
                self.shared = gr.Image(
                    label="Comparison (PNG)",
                    show_label=False,
                    format="png",
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    alt_text="The picture, the masks of the networks over it, and the legend",
                    min_width=300,
                    elem_id="shared",
                )
                self.files = gr.File(
                    label="Files",
                    file_count="multiple",
                    interactive=False,
                    min_width=300,
                    elem_id="files",
                )
            self.code = gr.Code(
                label="The same in Python",
                language="python",
                interactive=False,
                wrap_lines=True,
                elem_id="code",
            )

    def lay_out_networks(self) -> None:
        with self.tab("networks"), gr.Row():
            for name, text in strings.NETWORKS.items():
                with gr.Column(min_width=280):
                    gr.HTML(html.figure(ASSETS / f"{name}.svg", strings.FIGURE_ALTS[name]))
                    gr.Markdown(text)
        with self.tab("own"):
            gr.Markdown(strings.OWN_HELP.format(megabytes=MAX_BYTES // 1_000_000))
            slots = [(f"{n.title} ({n.name})", n.name) for n in self.service.networks.values()]
            with gr.Row():
                self.slot = gr.Dropdown(slots, value=slots[0][1], label="In the place of")
                self.hub_id = gr.Textbox(
                    label="Hub id",
                    placeholder="organisation/name",
                    elem_id="hub-id",
                    max_length=200,
                )
            with gr.Row():
                self.bring = gr.Button("Load and compare", elem_id="bring")
                self.reset_models = gr.Button("Back to the page's own networks")
            self.user_model_note = gr.HTML(elem_id="user-model-note", elem_classes="slot")
        with self.tab("programs"):
            gr.Markdown(self.service.programs())

    def wire(self, page: gr.Blocks) -> None:
        """What happens when something is used: `callbacks`, by the names of the components."""
        asked = [self.picture, self.scene, self.replacements, self.session, self.open_tab]
        everything = [getattr(self, name) for name in CLEARED]
        networks: dict[str, Any] = {"concurrency_id": "networks", "api_visibility": "private"}
        light: dict[str, Any] = {"queue": False, "api_visibility": "private"}

        page.load(self.welcome, None, [self.picture, *everything], show_progress="hidden", **light)
        gr.on(
            [self.picture.change, self.scene.change, self.replacements.change],
            self.doing("run"),
            asked,
            everything,
            trigger_mode="always_last",
            show_progress_on=self.masks,
            **networks,
        )
        self.button.click(
            self.doing("run_again"), asked, everything, show_progress_on=self.masks, **networks
        )
        self.scene.change(self.show_scene, self.scene, [self.scene_note, *self.examples], **light)
        for name, tab in self.tabs.items():
            opened = tab.select(functools.partial(str, name), None, self.open_tab, **light)
            if name in FILLED_WHEN_OPEN:
                opened.then(
                    self.doing("fill"),
                    [self.open_tab, self.session, self.filled],
                    everything,
                    show_progress_on=[self.heat, self.stages, self.files],
                    **networks,
                )
        self.picture.change(lambda: None, None, self.label, **light)
        self.label.change(
            self.doing("judge"),
            [self.label, self.session],
            [self.errors, self.iou, self.truth_note],
            api_visibility="private",
        )
        self.sample.click(
            self.doing("draw_samples"),
            [self.session, self.samples],
            [self.variance, self.uncertainty_note],
            **networks,
        )
        gr.on(
            [self.bring.click, self.hub_id.submit],
            self.doing("add_user_model"),
            [self.slot, self.hub_id, self.replacements],
            [self.replacements, self.user_model_note],
            api_visibility="private",
        )
        self.reset_models.click(
            self.doing("reset_models"),
            None,
            [self.replacements, self.user_model_note],
            api_visibility="private",
        )

    def doing(self, callback: str) -> Callable[..., Iterator[Any]]:
        """The callback as Gradio calls it: changes by component."""

        def act(*values: Any) -> Iterator[Any]:
            changed = False
            for changes in getattr(self.callbacks, callback)(*values):
                changed = True
                yield {getattr(self, name): value for name, value in changes.items()}
            if not changed:
                yield gr.skip()

        return act

    def welcome(self) -> dict[Any, Any]:
        return {getattr(self, name): value for name, value in self.callbacks.welcome().items()}

    def show_scene(self, scene: str) -> list[Any]:
        columns = [gr.Column(visible=name == scene) for name in self.service.scenes]
        return [strings.SCENES[scene], *columns]


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
        css_paths=CSS,
        theme=gr.themes.Default(),
        ssr_mode=False,
        enable_monitoring=False,
        run_history=False,
        mcp_server=find_spec("mcp") is not None,
    )


if __name__ == "__main__":
    main()
