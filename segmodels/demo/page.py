"""The page: FCN, U-Net and SegNet side by side on the visitor's own image.

It serves the networks in a clone's weights_card/, or those that the environment variable
SEGMODELS_MODELS names (Hub ids or folders, comma-separated).
"""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict

import gradio as gr
from PIL import Image, ImageOps
from starlette.middleware import Middleware

from segmodels.demo import html, server, strings, uploads
from segmodels.demo.api import add_api
from segmodels.demo.callbacks import CLEARED, NOTES, Callbacks, PageUpdate, Updates
from segmodels.demo.components import ASSETS, CSS, example_strip, figures, image_input, viewer
from segmodels.demo.link_preview import LinkPreview, address_of
from segmodels.demo.scenes import ExamplesError, example_folder
from segmodels.demo.service import MAX_PIXELS, ComparisonService
from segmodels.demo.user_models import MAX_BYTES
from segmodels.demo.video_tab import CameraTab, VideoTab
from segmodels.demo.waiting import LANE, place_in_queue
from segmodels.inference.comparison import ServedModel, load_networks, served_sources

CLONE = Path(__file__).resolve().parents[2]  # the repository root when run from a clone
EXAMPLES = CLONE / "examples"
WEIGHTS = CLONE / "weights_card"
QUEUE_SIZE = 20
QUEUE_SLEEP = 0.01  # seconds; Gradio's 0.001 keeps an idle server busy
QUEUE_LOOK = 1.0  # seconds between polls of a visitor's place in the queue
MOST_LOOKS = 20  # consecutive polls without a waiting call; a call may take a while to arrive
SAMPLES = 8
FIRST_TAB = "areas"
THUMBNAIL = (144, 96)  # pixels

# On a ZeroGPU Space, only functions wrapped in this decorator can use the GPU.
on_gpu: Callable[[Any], Any] = (
    import_module("spaces").GPU if find_spec("spaces") else lambda function: function
)


class Thumbnail(TypedDict):
    """An example in the strip of examples."""

    key: str
    title: str
    caption: str
    notes: list[dict[str, Any]]
    src: str


class Page:
    """The page's components from top to bottom, and their event handlers."""

    def __init__(self, service: ComparisonService) -> None:
        self.service = service
        self.callbacks = Callbacks(service, on_gpu)
        self.scenes = list(service.scenes)
        self.session = gr.State(time_to_live=server.KEPT_SECONDS)  # a Session, once there is one
        self.compared = gr.Textbox(visible=False)
        self.replacements = gr.State({})
        self.shown_scene = gr.Textbox(visible=False)
        self.looks = gr.Number(0, visible=False)  # consecutive polls that found no waiting call
        self.open_tab = gr.State(FIRST_TAB)
        self.filled = gr.State([])
        self.lay_out_input()
        self.masks = viewer(elem_id="masks")
        self.panel_file = gr.File(visible="hidden", elem_id="panel-file")
        self.table = gr.HTML(elem_id="facts")
        self.tabs: dict[str, gr.Tab] = {}
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as self.tab_bar:
            self.lay_out_insights()
            self.lay_out_truth()
            self.lay_out_downloads()
            with self.tab("video"):
                self.video = VideoTab(service, on_gpu)
            with self.tab("camera"):
                self.camera = CameraTab(service, on_gpu)
            self.lay_out_networks()
        self.outputs: dict[str, Any] = {
            "picture": self.picture,
            "masks": self.masks,
            "agreement": self.agreement,
            "heat": self.heat,
            "stages": self.stages,
            "variance": self.variance,
            "errors": self.errors,
            "session": self.session,
            "compared": self.compared,
            "filled": self.filled,
            "shared": self.shared,
            "files": self.files,
            "code": self.code,
            "panel_file": self.panel_file,
            "areas": self.areas,
            "table": self.table,
            "iou": self.iou,
            "queue_note": self.queue_note,
            "outside_note": self.outside_note,
            "agreement_note": self.agreement_note,
            "image_note": self.image_note,
            "heat_note": self.heat_note,
            "skips_note": self.skips_note,
            "uncertainty_note": self.uncertainty_note,
            "truth_note": self.truth_note,
            "downloads_note": self.downloads_note,
            "replacements": self.replacements,
            "user_model_note": self.user_model_note,
        }

    # ---- components ----

    def lay_out_input(self) -> None:
        with gr.Row(elem_id="input"):
            with gr.Column(scale=0, min_width=210, elem_id="input-image"):
                self.picture = image_input(
                    label="Image",
                    sources=["upload", "clipboard", "webcam"],
                    height=132,
                    show_label=False,
                    buttons=[],
                    elem_id="picture",
                    alt_text="The image to segment",
                )
                with gr.Row(elem_id="input-buttons"):
                    self.change = gr.UploadButton(
                        "Change image",
                        file_types=["image"],
                        size="sm",
                        elem_id="change",
                        min_width=90,
                    )
                    self.button = gr.Button(
                        "Compare", variant="primary", size="sm", elem_id="compare", min_width=90
                    )
            with gr.Column(scale=1, min_width=280, elem_id="input-choice"):
                with gr.Row(elem_id="scenes"):
                    self.scene = gr.Radio(
                        [(self.service.scene(scene).label, scene) for scene in self.scenes],
                        value=self.scenes[0],
                        label="Trained for",
                        visible=len(self.scenes) > 1,
                        elem_id="scene",
                    )
                    self.scene_note = gr.Markdown(
                        self.service.scene(self.scenes[0]).description, elem_id="scene-note"
                    )
                self.strip = example_strip(
                    value=self.thumbnails(self.scenes[0]), elem_id="examples"
                )
        self.clock = gr.Timer(QUEUE_LOOK, active=False)
        self.queue_note = gr.HTML(elem_classes="slot", elem_id="queue-note")
        self.image_note = gr.HTML(elem_classes="slot", elem_id="image-note")
        self.outside_note = gr.HTML(elem_classes="slot", elem_id="outside-note")

    def thumbnails(self, scene: str) -> list[Thumbnail]:
        """Return the scene's examples for the strip."""
        return [
            {
                "key": example.key,
                "title": example.title,
                "caption": example.caption,
                "notes": [asdict(note) for note in example.notes],
                "src": thumbnail_url(self.service.example_path(example)),
            }
            for example in self.service.examples(scene)
        ]

    def tab(self, name: str) -> gr.Tab:
        self.tabs[name] = gr.Tab(strings.TABS[name], id=name, elem_id=f"tab-{name}")
        return self.tabs[name]

    def lay_out_insights(self) -> None:
        with self.tab("areas"):
            self.areas = gr.HTML(elem_id="areas")
        with self.tab("agreement"):
            gr.Markdown(strings.AGREEMENT_HELP)
            self.agreement_note = gr.HTML(elem_classes="slot")
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
                self.sample = gr.Button("Estimate uncertainty", elem_id="sample", scale=1)
            self.uncertainty_note = gr.HTML(elem_classes="slot", elem_id="uncertainty-note")
            self.variance = viewer(elem_id="uncertainty")

    def lay_out_truth(self) -> None:
        with self.tab("truth"):
            example = strings.TRUTH_EXAMPLE if self.service.labels else ""
            gr.Markdown(f"{strings.TRUTH_HELP} {example}")
            self.label = image_input(
                label="Label image",
                sources=["upload", "clipboard"],
                height=160,
                elem_id="label",
                alt_text="The label image",
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
                    alt_text="The image, the masks of the networks over it, and the legend",
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
            self.code = gr.Markdown(elem_id="code")

    def lay_out_networks(self) -> None:
        with self.tab("networks"), gr.Row():
            drawings = figures()
            for name, text in strings.NETWORKS.items():
                with gr.Column(min_width=280):
                    gr.HTML(drawings[name])
                    gr.Markdown(text)
        with self.tab("own"):
            gr.Markdown(strings.OWN_HELP.format(megabytes=MAX_BYTES // 1_000_000))
            slots = [(f"{n.title} ({n.name})", n.name) for n in self.service.networks.values()]
            with gr.Row():
                self.slot = gr.Dropdown(slots, value=slots[0][1], label="Replace")
                self.hub_id = gr.Textbox(
                    label="Hugging Face model ID",
                    placeholder="organisation/name",
                    elem_id="hub-id",
                    max_length=200,
                )
            with gr.Row():
                self.add_model = gr.Button("Load and compare", elem_id="add-model")
                self.reset_models = gr.Button("Restore built-in models", elem_id="reset-models")
            self.user_model_note = gr.HTML(elem_id="user-model-note", elem_classes="slot")
        with self.tab("programs"):
            self.programs = gr.Markdown(self.service.programs("http://127.0.0.1:7860"))

    # ---- events ----

    def wire(self, page: gr.Blocks) -> None:
        """Attach the event handlers."""
        self.blocks = page
        inputs = [
            *(self.picture, self.scene, self.replacements, self.session),
            *(self.compared, self.open_tab),
        ]
        everything = [self.table, *(self.outputs[name] for name in CLEARED)]
        networks: dict[str, Any] = {"concurrency_id": LANE, "api_visibility": "private"}
        light: dict[str, Any] = {"queue": False, "api_visibility": "private"}
        # Gradio's page copies the values of all components that show progress whenever a status
        # changes, even hidden ones: name a small one instead of the viewers.
        unseen: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": self.queue_note}
        callbacks = self.callbacks

        page.load(
            self.load,
            None,
            [
                *(self.picture, self.scene, self.shown_scene, self.strip, self.scene_note),
                *(self.tab_bar, self.open_tab, self.programs),
                *everything,
            ],
            **unseen,
            **light,
        )
        self.scene.change(
            self.show_scene,
            [self.scene, self.compared],
            [self.strip, self.scene_note, self.shown_scene, self.picture],
            **light,
        )
        self.scene.change(None, self.scene, None, js=SCENE_ADDRESS % json.dumps(self.scenes[0]))
        changes = [self.picture.change, self.shown_scene.change, self.replacements.change]
        # Registered before the comparison: Gradio runs the handlers of an event in order.
        gr.on([*changes, self.button.click], None, None, [self.clock, self.looks], js=START_CLOCK)
        self.clock.tick(
            self.show_place,
            self.looks,
            [self.queue_note, self.clock, self.looks],
            **unseen,
            **light,
        )
        gr.on(
            changes,
            self.updates(callbacks.run),
            inputs,
            everything,
            trigger_mode="always_last",
            **unseen,
            **networks,
        )
        self.button.click(
            self.updates(callbacks.run_again),
            inputs,
            everything,
            **unseen,
            **networks,
        )
        self.change.upload(lambda path: path, self.change, self.picture, **light)
        self.strip.select(self.choose_example, self.scene, self.picture, **light)
        self.masks.select(
            self.use_panel,
            [self.session, self.compared, self.scene, self.replacements],
            [self.panel_file, self.image_note, self.replacements],
            **unseen,
            api_visibility="private",
        ).then(None, self.panel_file, None, js=SAVE_FILE, **light)
        self.picture.change(lambda: None, None, self.label, **light)
        self.label.change(
            self.updates(callbacks.judge),
            [self.label, self.session, self.compared],
            [self.errors, self.iou, self.truth_note, self.masks],
            show_progress_on=self.errors,
            api_visibility="private",
        )
        self.sample.click(
            self.updates(callbacks.draw_samples),
            [self.session, self.compared, self.samples],
            [self.variance, self.uncertainty_note],
            show_progress="minimal",
            **networks,
        )
        gr.on(
            [self.add_model.click, self.hub_id.submit],
            self.updates(callbacks.add_user_model),
            [self.slot, self.hub_id, self.replacements],
            [self.replacements, self.user_model_note],
            api_visibility="private",
        )
        self.reset_models.click(
            self.updates(callbacks.reset_models),
            None,
            [self.replacements, self.user_model_note],
            api_visibility="private",
        )
        self.wire_tabs(everything, networks, light)
        self.video.wire(self.scene, self.replacements)
        self.camera.wire()

    def wire_tabs(
        self, everything: list[Any], networks: dict[str, Any], light: dict[str, Any]
    ) -> None:
        for name, tab in self.tabs.items():
            tab.select(
                None,
                None,
                None,
                js=f"() => window.segmodels?.address({{tab: '{name}'}})",
            )
            opened = tab.select(lambda name=name: name, None, self.open_tab, **light)
            if name in NOTES:
                opened.then(
                    self.updates(self.callbacks.fill),
                    [self.open_tab, self.session, self.compared, self.filled],
                    everything,
                    show_progress="minimal",
                    show_progress_on=[self.heat, self.stages, self.files],
                    **networks,
                )

    def updates(self, callback: Callable[..., Updates]) -> Callable[..., Iterator[Any]]:
        """Wrap a callback so that it yields values by component, as Gradio expects."""

        def call(*values: Any) -> Iterator[Any]:
            changed = False
            for update in callback(*values):
                changed = True
                yield self.by_component(update)
            if not changed:
                yield gr.skip()

        return call

    def by_component(self, update: PageUpdate) -> dict[Any, Any]:
        """Replace component names by components."""
        return {self.outputs[name]: value for name, value in update.items()}

    def load(self, request: gr.Request) -> dict[Any, Any]:
        """Open the page with the scene, example and tab given in its address."""
        wanted = dict(request.query_params)
        scene = wanted.get("scene", "")
        scene = scene if scene in self.scenes else self.scenes[0]
        tab = wanted.get("tab", "")
        tab = tab if tab in self.tabs else FIRST_TAB
        values = self.by_component(self.callbacks.welcome(scene, wanted.get("example", "")))
        if request.request is not None:
            values[self.programs] = self.service.programs(address_of(request.request.scope))
        values |= {self.open_tab: tab, self.shown_scene: scene}
        if scene != self.scenes[0]:
            values |= {self.scene: scene, self.strip: self.thumbnails(scene)}
            values[self.scene_note] = self.service.scene(scene).description
        if tab != FIRST_TAB:
            values[self.tab_bar] = gr.Tabs(selected=tab)
        return values

    def show_scene(self, scene: str, compared: str) -> tuple[Any, ...]:
        """Show the scene's examples and description, and replace an example of another scene."""
        example = self.callbacks.example_for_scene(scene, compared)
        description = self.service.scene(scene).description
        return self.thumbnails(scene), description, scene, example or gr.skip()

    def show_place(self, looks: float, request: gr.Request) -> tuple[str, gr.Timer, float]:
        """Show the visitor's place in the queue while there is one.

        Args:
            looks: Consecutive polls without a waiting call; the timer stops at `MOST_LOOKS`.
            request: The visitor's request.
        """
        expected = self.service.expected_seconds()
        place = place_in_queue(self.blocks, request.session_hash or "", expected)
        text = strings.queue(place.ahead, place.seconds) if place else ""
        looks = 0 if place else looks + 1
        return html.notice(text), gr.Timer(active=looks < MOST_LOOKS), looks

    def choose_example(self, scene: str, event: gr.EventData) -> Any:
        """Return the image of the example whose key the event carries."""
        for example in self.service.examples(scene):
            if example.key == event.key:
                return str(self.service.example_path(example))
        return gr.skip()

    def use_panel(
        self,
        session: Any,
        compared: str,
        scene: str,
        replacements: dict[str, str],
        event: gr.EventData,
    ) -> Iterator[dict[Any, Any]]:
        """Handle a panel's controls: download its class map, replace its network, or share."""
        kind, number = event.kind, int(event.panel)
        if kind == "network":
            updates = self.callbacks.replace_network(
                scene, number, str(event.network), replacements
            )
        elif kind == "share":
            updates = self.callbacks.share(session, compared)
        else:
            updates = self.callbacks.download_panel(number, session, compared)
        for update in updates:
            yield {self.panel_file: None, **self.by_component(update)}


# Runs in the browser: puts the scene into the page's address unless it is the first one.
SCENE_ADDRESS = """(scene) => {
    window.segmodels?.address({ scene: scene === %s ? "" : scene });
}"""

START_CLOCK = "() => [{ __type__: 'update', active: true }, 0]"

# Runs in the browser: saves the file of a hidden component under its original name.
SAVE_FILE = """(file) => {
    if (!file) return;
    const link = document.createElement("a");
    link.href = file.url;
    link.download = file.orig_name;
    link.click();
}"""


def thumbnail_url(path: Path) -> str:
    """Return a thumbnail of an image file as a JPEG data URL."""
    with Image.open(path) as image:
        small = ImageOps.fit(image.convert("RGB"), THUMBNAIL)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def build_page(networks: list[ServedModel]) -> gr.Blocks:
    """Build the page for these networks, including its API endpoints."""
    examples = example_folder(EXAMPLES)
    service = ComparisonService(networks, examples)
    introduction = examples.introduction or strings.INTRODUCTION
    with gr.Blocks(title=strings.TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {strings.TITLE}\n{introduction}", elem_id="introduction")
        content = Page(service)
        content.wire(page)
        gr.Markdown(
            strings.PRIVACY.format(minutes=round(server.KEPT_SECONDS / 60)), elem_id="privacy"
        )
        add_api(service, on_gpu(service.run))
    page.queue(max_size=QUEUE_SIZE, default_concurrency_limit=1, api_open=False)
    page._queue.sleep_when_free = QUEUE_SLEEP
    if not find_spec("spaces"):  # ZeroGPU provides a GPU only for visitors' calls
        # Not a daemon: a thread still computing at interpreter exit would abort the process.
        threading.Thread(target=content.callbacks.warm_up, args=[content.scenes[0]]).start()
    return page


def create_page() -> gr.Blocks:
    """Load the networks to serve and build their page.

    Raises:
        SystemExit: If a network cannot be loaded, or the folder of examples is invalid.
    """
    server.prepare(MAX_PIXELS)
    try:
        networks = load_networks(served_sources(WEIGHTS))
    except ValueError as error:  # CheckpointError, or unsupported input channels
        raise SystemExit(f"segmodels: {error}") from error
    try:
        return build_page(networks)
    except ExamplesError as error:
        raise SystemExit(f"segmodels: {error}") from error


def serve(page: gr.Blocks, host: str | None = None, port: int | None = None) -> None:
    """Serve the page until it is stopped."""
    image = ASSETS / "preview.jpg"
    preview = Middleware(LinkPreview, strings.TITLE, strings.DESCRIPTION, image)
    server.serve(
        page,
        max_upload=uploads.MAX_UPLOAD,
        middleware=[preview],
        server_name=host,
        server_port=port,
        css_paths=CSS,
        theme=gr.themes.Default(),
        favicon_path=ASSETS / "favicon.png",
        ssr_mode=False,
        enable_monitoring=False,
        run_history=False,
        mcp_server=find_spec("mcp") is not None,
    )


def main(host: str | None = None, port: int | None = None) -> None:
    """Load the networks and serve the page until it is stopped."""
    serve(create_page(), host, port)
