"""The page: FCN, U-Net and SegNet side by side on the visitor's own picture.

`python app.py`, or `segmodels demo`. It serves the networks in weights_card/, or those that the
environment variable SEGMODELS_MODELS names (Hub ids or folders, comma-separated).
"""

import functools
import tempfile
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr

from segmodels import CheckpointError, PictureError, draw, texts
from segmodels.api import add_api
from segmodels.compare import Network, load_networks, served_sources
from segmodels.guests import MAX_BYTES
from segmodels.host import Host, Shown
from segmodels.visit import Visit, digest_of
from segmodels.widgets import ASSETS, CSS, Viewer, picture_input

HERE = Path(__file__).resolve().parent
EXAMPLES = {
    "road": ["avenue.jpg", "crossing.jpg", "street.jpg", "highway.jpg", "cyclists.jpg"],
    "everyday": ["cat.jpg", "astronaut.jpg"],
}
MAX_UPLOAD = "30mb"
KEPT_SECONDS = 600  # uploads and results are deleted after so long
QUEUE_SIZE = 20
SAMPLES = 8

Values = dict[Any, Any]  # by component

# On a ZeroGPU Space; imported before anything touches CUDA.
spaces = import_module("spaces") if find_spec("spaces") else None
on_gpu = spaces.GPU if spaces else lambda function: function


def build_page(networks: list[Network]) -> gr.Blocks:
    """The page for these networks, and the named endpoints of its API."""
    host = Host(networks, HERE / "examples")
    with gr.Blocks(title=texts.TITLE, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as page:
        gr.Markdown(texts.INTRODUCTION)
        Page(host).wire(page)
        gr.Markdown(texts.PRIVACY.format(minutes=KEPT_SECONDS // 60))
        add_api(host, on_gpu(host.visit))
    return page


class Page:
    """The page's components from top to bottom, and what happens when they are used."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.visit = gr.State(time_to_live=KEPT_SECONDS)  # a Visit, once there is one
        self.guests = gr.State({})  # Hub id by the source of the network that it replaces
        self.open_tab = gr.State("areas")
        self.filled = gr.State([])  # tabs that show what belongs to the visit
        self.compare, self.confidence, self.skips, self.uncertainty = map(
            on_gpu, (host.compare, host.confidence, host.skips, host.uncertainty)
        )
        self.lay_out_input()
        self.masks = Viewer(elem_id="masks")
        self.tabs: dict[str, gr.Tab] = {}
        with gr.Tabs(elem_id="tabs"):
            self.lay_out_insights()
            self.lay_out_truth()
            self.lay_out_take_away()
            self.lay_out_networks()

    def lay_out_input(self) -> None:
        scenes = list(self.host.scenes)
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
                    [(texts.SCENE_NAMES[scene], scene) for scene in scenes],
                    value=scenes[0],
                    label="Scene",
                    visible=len(scenes) > 1,
                    elem_id="scene",
                )
                self.scene_note = gr.Markdown(texts.SCENES[scenes[0]], elem_id="scene-note")
                self.examples = [self.lay_out_examples(scene) for scene in scenes]
                self.button = gr.Button("Compare", variant="primary", elem_id="compare")

    def lay_out_examples(self, scene: str) -> gr.Column:
        first = next(iter(self.host.scenes))
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
        self.tabs[name] = gr.Tab(texts.TABS[name], id=name)
        return self.tabs[name]

    def lay_out_insights(self) -> None:
        with self.tab("areas"):
            self.areas = gr.HTML(elem_id="areas")
        with self.tab("agreement"):
            gr.Markdown(texts.AGREEMENT_HELP)
            self.agreement = Viewer(elem_id="agreement")
        with self.tab("confidence"):
            gr.Markdown(texts.CONFIDENCE_HELP)
            self.heat = Viewer(elem_id="confidence")
        with self.tab("skips"):
            gr.Markdown(texts.SKIPS_HELP)
            self.skips_note = gr.HTML()
            self.stages = Viewer(elem_id="skips")
        with self.tab("uncertainty"):
            gr.Markdown(texts.UNCERTAINTY_HELP)
            with gr.Row():
                self.samples = gr.Slider(2, 40, value=SAMPLES, step=1, label="Samples", scale=3)
                self.sample = gr.Button("Draw samples", elem_id="sample", scale=1)
            self.uncertainty_note = gr.HTML()
            self.variance = Viewer(elem_id="uncertainty")

    def lay_out_truth(self) -> None:
        with self.tab("truth"):
            gr.Markdown(texts.TRUTH_HELP)
            self.label = picture_input(
                label="Label picture",
                sources=["upload", "clipboard"],
                height=160,
                elem_id="label",
                alt_text="The label picture",
            )
            self.truth_note = gr.HTML()
            self.errors = Viewer(elem_id="errors")
            self.iou = gr.HTML(elem_id="iou")

    def lay_out_take_away(self) -> None:
        with self.tab("take"):
            gr.Markdown(texts.TAKE_HELP)
            self.take_note = gr.HTML()
            with gr.Row():
                self.shared = gr.Image(
                    label="Comparison (PNG)",
                    format="png",
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    alt_text="The picture, the masks of the networks over it, and the legend",
                    elem_id="shared",
                )
                self.files = gr.File(
                    label="Files", file_count="multiple", interactive=False, elem_id="files"
                )
            self.code = gr.Code(
                label="The same in Python", language="python", interactive=False, elem_id="code"
            )

    def lay_out_networks(self) -> None:
        with self.tab("networks"), gr.Row():
            for name, text in texts.NETWORKS.items():
                with gr.Column(min_width=280):
                    gr.HTML(draw.figure(ASSETS / f"{name}.svg", texts.FIGURE_ALTS[name]))
                    gr.Markdown(text)
        with self.tab("own"):
            gr.Markdown(texts.OWN_HELP.format(megabytes=MAX_BYTES // 1_000_000))
            slots = [(f"{n.title} ({n.name})", s) for s, n in self.host.networks.items()]
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
                self.send_away = gr.Button("Back to the page's own networks")
            self.guest_note = gr.HTML(elem_id="guest-note")
        with self.tab("programs"):
            gr.Markdown(self.host.programs())

    # What happens

    def wire(self, page: gr.Blocks) -> None:
        everything = [
            *(self.picture, self.masks, self.areas, self.agreement, self.visit, self.filled),
            *(self.heat, self.stages, self.variance, self.errors, self.iou, self.label),
            *(self.skips_note, self.uncertainty_note, self.truth_note, self.take_note),
            *(self.shared, self.files, self.code),
        ]
        asked = [self.picture, self.scene, self.guests, self.visit]
        private: dict[str, Any] = {"api_visibility": "private"}
        heavy = {**private, "concurrency_id": "networks"}
        fill = {
            "fn": self.fill,
            "inputs": [self.open_tab, self.visit, self.filled],
            "outputs": everything,
            **heavy,
        }
        page.load(self.welcome, None, everything, **private)
        gr.on(
            [self.picture.change, self.scene.change, self.guests.change],
            self.run,
            asked,
            everything,
            trigger_mode="always_last",
            show_progress_on=self.masks,
            **heavy,
        ).then(**fill)
        self.button.click(
            self.run_again, asked, everything, show_progress_on=self.masks, **heavy
        ).then(**fill)
        self.scene.change(
            self.show_scene, self.scene, [self.scene_note, *self.examples], queue=False, **private
        )
        for name, tab in self.tabs.items():
            tab.select(
                functools.partial(str, name), None, self.open_tab, queue=False, **private
            ).then(**fill)
        self.label.change(
            self.judge,
            [self.label, self.visit],
            [self.errors, self.iou, self.truth_note],
            **private,
        )
        self.sample.click(
            self.draw_samples,
            [self.visit, self.samples],
            [self.variance, self.uncertainty_note],
            **heavy,
        )
        gr.on(
            [self.bring.click, self.hub_id.submit],
            self.invite,
            [self.slot, self.hub_id, self.guests],
            [self.guests, self.guest_note],
            **private,
        )
        self.send_away.click(lambda: ({}, ""), None, [self.guests, self.guest_note], **private)

    def cleared(self) -> Values:
        """Without a comparison."""
        views = (self.masks, self.agreement, self.heat, self.stages, self.variance, self.errors)
        texts_ = (self.areas, self.iou, self.skips_note, self.uncertainty_note, self.truth_note)
        others = (self.visit, self.label, self.shared, self.files, self.code)
        return {
            **dict.fromkeys((*views, *others)),
            **dict.fromkeys((*texts_, self.take_note), ""),
            self.filled: [],
        }

    def shown(self, shown: Shown) -> Values:
        return {
            self.masks: shown.masks,
            self.areas: shown.areas,
            self.agreement: shown.agreement,
            self.visit: shown.visit,
        }

    def welcome(self) -> Values:
        """The first example, compared once for all visitors."""
        return {self.picture: str(self.first_example), **self.shown(self.first_comparison)}

    @property
    def first_example(self) -> Path:
        scene = next(iter(self.host.scenes))
        return HERE / "examples" / EXAMPLES.get(scene, EXAMPLES["road"])[0]

    @functools.cached_property
    def first_comparison(self) -> Shown:
        scene = next(iter(self.host.scenes))
        return list(self.compare(str(self.first_example), self.host.line_up(scene, {}), scene))[-1]

    def run(
        self, path: str | None, scene: str, guests: dict[str, str], visit: Visit | None
    ) -> Iterator[Values]:
        """Compare, unless that is what the page shows."""
        if path is None:
            yield self.cleared()
            return
        try:
            sources = self.host.line_up(scene, guests)
            if visit and visit.asked == (digest_of(path), scene, tuple(sources)):
                yield gr.skip()
                return
            yield self.cleared()
            for shown in self.compare(path, sources, scene):
                yield self.shown(shown)
        except (PictureError, CheckpointError) as error:
            gr.Warning(texts.unusable(error))
            yield self.cleared()

    def run_again(
        self, path: str | None, scene: str, guests: dict[str, str], _: Visit | None
    ) -> Iterator[Values]:
        if path is None:
            gr.Warning(texts.NO_PICTURE)
        yield from self.run(path, scene, guests, None)

    def show_scene(self, scene: str) -> list[Any]:
        columns = [gr.Column(visible=name == scene) for name in self.host.scenes]
        return [texts.SCENES[scene], *columns]

    def fill(self, tab: str, visit: Visit | None, filled: list[str]) -> Iterator[Values]:
        """What the open tab shows of the comparison: computed when it is looked at."""
        if visit is None or not visit.answered or tab in filled:
            yield gr.skip()
            return
        try:
            if tab == "confidence":
                yield from ({self.heat: view} for view in self.confidence(visit))
            elif tab == "skips":
                yield from ({self.stages: view} for view in self.skips(visit))
            elif tab == "truth":
                yield self.judged(None, visit)
            elif tab == "take":
                yield from self.taken(visit)
            yield {self.filled: [*filled, tab]}
        except (PictureError, ValueError) as error:
            notes = {"skips": self.skips_note, "truth": self.truth_note, "take": self.take_note}
            yield {notes.get(tab, self.skips_note): draw.notice(str(error))}

    def taken(self, visit: Visit) -> Iterator[Values]:
        yield {self.code: self.host.snippet(visit), self.take_note: draw.notice(texts.PREPARING)}
        with tempfile.TemporaryDirectory() as folder:
            shared, files = self.host.take(visit, Path(folder))
            yield {
                self.shared: str(shared),
                self.files: [str(file) for file in [shared, *files]],
                self.take_note: "",
            }

    def judge(self, label: str | None, visit: Visit | None) -> Values:
        """Against the label that the visitor gave."""
        if label is None:
            return {self.errors: None, self.iou: "", self.truth_note: ""}
        if visit is None or not visit.answered:
            return {self.truth_note: draw.notice(texts.STALE, problem=True)}
        try:
            return self.judged(label, visit)
        except PictureError as error:
            note = draw.notice(texts.unusable(error), problem=True)
            return {self.errors: None, self.iou: "", self.truth_note: note}

    def judged(self, label: str | None, visit: Visit) -> Values:
        view, plot = self.host.truth(visit, label) or (None, "")
        return {self.errors: view, self.iou: plot, self.truth_note: ""}

    def draw_samples(self, visit: Visit | None, samples: int) -> Iterator[Values]:
        if visit is None:
            yield {self.uncertainty_note: draw.notice(texts.STALE, problem=True)}
            return
        try:
            yield {self.uncertainty_note: draw.notice(self.host.without_dropout(visit))}
            yield from ({self.variance: view} for view in self.uncertainty(visit, int(samples)))
        except ValueError as error:
            yield {self.uncertainty_note: draw.notice(str(error), problem=True)}

    def invite(self, slot: str, hub_id: str, guests: dict[str, str]) -> tuple[dict[str, str], str]:
        """The visitor's network in the place of one of the page's."""
        try:
            network = self.host.guests.get(hub_id)
        except CheckpointError as error:
            return guests, draw.notice(str(error), problem=True)
        return {**guests, slot: network.source}, draw.notice(texts.welcome(network))


def main(host: str | None = None, port: int | None = None) -> None:
    """Load the networks and serve the page until it is stopped."""
    try:
        networks = load_networks(served_sources(HERE / "weights_card"))
    except CheckpointError as error:
        raise SystemExit(f"segmodels: {error}") from error
    page = build_page(networks)
    page.queue(max_size=QUEUE_SIZE, default_concurrency_limit=1)
    page.launch(
        server_name=host,
        server_port=port,
        css_paths=CSS,
        theme=gr.themes.Default(),
        max_file_size=MAX_UPLOAD,
        ssr_mode=False,
        enable_monitoring=False,
        run_history=False,
        mcp_server=find_spec("mcp") is not None,
    )


if __name__ == "__main__":
    main()
