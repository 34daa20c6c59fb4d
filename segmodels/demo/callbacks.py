"""Callbacks of the page. Each yields updates that map component names to new values."""

import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypedDict

from segmodels.data.image_io import PictureError
from segmodels.demo import html, strings
from segmodels.demo.scene_fit import Outside
from segmodels.demo.scenes import Example
from segmodels.demo.server import KEPT_SECONDS
from segmodels.demo.service import ComparisonService, Shown, ViewError
from segmodels.demo.session import ExpiredError, Session
from segmodels.demo.viewer import View
from segmodels.hub.checkpoint import CheckpointError
from segmodels.inference.decoded_image import file_digest

log = logging.getLogger(__name__)

WARM_RUNS = 3
Replacements = dict[str, str]  # name of the replaced network -> source of its replacement


class PageUpdate(TypedDict, total=False):
    """New values of the page's components, by component name.

    Attributes:
        compared: Digest of the image whose comparison is on the page, kept by the browser; "" if
            there is none.
        filled: Tabs that already show the results of the session.
    """

    picture: str | None
    masks: View | None
    agreement: View | None
    heat: View | None
    stages: View | None
    variance: View | None
    errors: View | None
    session: Session | None
    compared: str
    filled: list[str]
    shared: str | None
    files: list[str] | None
    code: str
    panel_file: str | None
    areas: str
    table: str
    iou: str
    queue_note: str
    image_note: str
    outside_note: str
    agreement_note: str
    heat_note: str
    skips_note: str
    uncertainty_note: str
    truth_note: str
    downloads_note: str
    replacements: Replacements
    user_model_note: str


Updates = Iterator[PageUpdate]

# Values of all components that depend on a comparison when there is none.
CLEARED: PageUpdate = {
    "masks": None,
    "agreement": None,
    "heat": None,
    "stages": None,
    "variance": None,
    "errors": None,
    "session": None,
    "compared": "",
    "filled": [],
    "shared": None,
    "files": None,
    "code": "",
    "areas": "",
    "iou": "",
    "queue_note": "",
    "image_note": "",
    "outside_note": "",
    "agreement_note": "",
    "heat_note": "",
    "skips_note": "",
    "uncertainty_note": "",
    "truth_note": "",
    "downloads_note": "",
}


class Callbacks:
    """The callbacks of a page.

    Args:
        service: The service that runs the computations.
        on_gpu: Decorator for functions that run networks, used where a GPU must be requested.
    """

    def __init__(
        self, service: ComparisonService, on_gpu: Callable[[Any], Any] = lambda function: function
    ) -> None:
        self.service = service
        self._examples: dict[tuple[str, str], Shown] = {}
        self._examples_lock = threading.Lock()
        self.outside: Callable[[Session], Outside | None] = on_gpu(service.outside)
        self.compare: Callable[..., Iterator[Shown]] = on_gpu(service.compare)
        self.confidence: Callable[[Session], Iterator[View]] = on_gpu(service.confidence)
        self.skips: Callable[[Session], Iterator[View]] = on_gpu(service.skips)
        self.uncertainty: Callable[[Session, int], Iterator[tuple[View, int]]] = on_gpu(
            service.uncertainty
        )

    # ---- the comparison ----

    def welcome(self, scene: str, key: str = "") -> PageUpdate:
        """Return the comparison of an example, computed once for all visitors.

        Args:
            scene: Name of the scene.
            key: Key of the example. If there is no such example, the scene's first one is used.
        """
        example = self._example(scene, key)
        if example is None:
            return {}
        with self._examples_lock:
            shown = self._examples.get((scene, example.file))
            shown = shown or self._compare_example(scene, example)
        return {**_shown(shown), "picture": str(self.service.example_path(example))}

    def warm_up(self, scene: str) -> None:
        """Compare the scene's first example until its timings are those of warm runs, or the
        process is shutting down."""
        if self.welcome(scene):
            example = self._example(scene, "")
            assert example is not None
            for _ in range(WARM_RUNS):
                if threading.main_thread().is_alive():
                    self._compare_example(scene, example)

    def _example(self, scene: str, key: str) -> Example | None:
        examples = self.service.examples(scene)
        return next((e for e in examples if e.key == key), examples[0] if examples else None)

    def _compare_example(self, scene: str, example: Example) -> Shown:
        path = self.service.example_path(example)
        sources = self.service.sources_of(scene, {})
        *_, shown = self.compare(str(path), file_digest(path), sources, scene)
        self._examples[scene, example.file] = shown
        return shown

    def run(
        self,
        path: str | None,
        scene: str,
        replacements: Replacements,
        session: Session | None,
        compared: str,
        tab: str,
    ) -> Updates:
        """Compare the networks unless the page already shows the result, then fill the open tab."""
        if path is None:
            yield CLEARED
            return
        if not Path(path).is_file():
            example = self.service.examples_by_digest.get(compared)
            if example is None:
                yield _expired()
                return
            path = str(self.service.example_path(example))
        try:
            sources = self.service.sources_of(scene, replacements)
            digest = file_digest(Path(path))
            if session and session.key == (digest, scene, tuple(sources)):
                yield {"image_note": ""}
                return
            for shown in self.compare(path, digest, sources, scene):
                yield {**CLEARED, **_shown(shown)}
        except (PictureError, CheckpointError) as error:
            yield {**CLEARED, "image_note": _problem(strings.unusable(error))}
        except MemoryError:
            yield {**CLEARED, "image_note": _problem(strings.OUT_OF_MEMORY)}
        else:
            yield from self._warn_if_outside(shown.session)
            yield from self.fill(tab, shown.session, compared, [])

    def _warn_if_outside(self, session: Session | None) -> Updates:
        if session is None or not session.has_results:
            return
        try:
            found = self.outside(session)
        except Exception:  # the hint is optional; the comparison remains valid
            log.exception("could not estimate how well the scene fits the image")
            return
        if found:
            text = strings.outside(found.kind, self.service.scene(session.scene).description)
            scene = found.better or ""
            label = strings.try_scene(self.service.scene(scene).label) if scene else ""
            yield {"outside_note": html.outside_hint(text, scene, label)}

    def example_for_scene(self, scene: str, compared: str) -> str | None:
        """Return the path of the scene's first example if the current image is an example of other
        scenes only, or None to keep the image."""
        shown = self.service.examples_by_digest.get(compared)
        examples = self.service.examples(scene)
        if shown is None or not examples or shown.file in {example.file for example in examples}:
            return None
        return str(self.service.example_path(examples[0]))

    def replace_network(
        self, scene: str, number: int, name: str, replacements: Replacements
    ) -> Updates:
        """Replace one of the scene's networks with another served network.

        Args:
            scene: Name of the scene.
            number: Index of the network to replace.
            name: Name of the served network to use instead.
            replacements: The current replacements.
        """
        places = self.service.scenes[scene]
        by_name = {network.name: network for network in self.service.networks.values()}
        if 0 <= number < len(places) and name in by_name:
            place, wanted = places[number].name, by_name[name]
            replaced = {k: source for k, source in replacements.items() if k != place}
            if place != name:
                replaced[place] = wanted.source
            yield {"replacements": replaced}

    def run_again(
        self,
        path: str | None,
        scene: str,
        replacements: Replacements,
        _: Session | None,
        compared: str,
        tab: str,
    ) -> Updates:
        """Compare the networks again, even if the page already shows the result."""
        yield from self.run(path, scene, replacements, None, compared, tab)
        if path is None:
            yield {"image_note": _problem(strings.NO_IMAGE)}

    # ---- tabs ----

    def fill(self, tab: str, session: Session | None, compared: str, filled: list[str]) -> Updates:
        """Fill the open tab. Its contents are computed when the tab is first viewed."""
        if tab not in NOTES or tab in filled:
            return
        if session is None or not session.has_results:
            yield _note(tab, html.notice(_stale(compared)))
            return
        try:
            yield from self._filling(tab, session)
            yield {"filled": [*filled, tab]}
        except Exception as error:
            yield _note(tab, _reason(error))

    def _filling(self, tab: str, session: Session) -> Updates:
        if tab == "confidence":
            for view in self.confidence(session):
                yield {"heat": view}
        elif tab == "skips":
            for view in self.skips(session):
                yield {"stages": view}
        elif tab == "truth":
            judged = self.service.truth(session, None)
            if judged:
                yield {"errors": judged.errors, "iou": judged.iou, "truth_note": ""}
        elif tab == "downloads":
            yield from self._downloads(session)

    def _downloads(self, session: Session) -> Updates:
        preparing = html.notice(strings.PREPARING)
        code = strings.python_code(self.service.snippet(session))
        yield {"code": code, "downloads_note": preparing}
        with tempfile.TemporaryDirectory() as folder:
            files = self.service.downloads(session, Path(folder))
            paths = [str(file) for file in files]
            yield {"shared": paths[-1], "files": paths, "downloads_note": ""}

    def download_panel(self, number: int, session: Session | None, compared: str) -> Updates:
        """Provide the class map of one panel at full size for download."""
        if session is None:
            yield {"image_note": _problem(_stale(compared))}
            return
        try:
            with tempfile.TemporaryDirectory() as folder:
                file = self.service.class_map(session, number, Path(folder))
                yield {"panel_file": str(file)}
        except Exception as error:
            yield {"image_note": _reason(error)}

    def share(self, session: Session | None, compared: str) -> Updates:
        """Provide the comparison as a single image for download."""
        if session is None:
            yield {"image_note": _problem(_stale(compared))}
            return
        try:
            with tempfile.TemporaryDirectory() as folder:
                file = self.service.comparison_image(session, Path(folder))
                yield {"panel_file": str(file)}
        except Exception as error:
            yield {"image_note": _reason(error)}

    def judge(self, label: str | None, session: Session | None, compared: str) -> Updates:
        """Evaluate the results against the label image that the visitor provided or removed."""
        if session is None or not session.has_results:
            yield {"truth_note": _problem(_stale(compared)) if label else ""}
            return
        try:
            judged = self.service.truth(session, label)
            if judged is None:
                masks = self.service.masks(session)
                yield {"errors": None, "iou": "", "truth_note": "", "masks": masks}
            else:
                yield {
                    "errors": judged.errors,
                    "iou": judged.iou,
                    "truth_note": "",
                    "masks": judged.masks,
                }
        except ExpiredError as error:  # keep the current views
            yield {"truth_note": _reason(error)}
        except Exception as error:
            yield {"errors": None, "iou": "", "truth_note": _problem(_words(error))}

    def draw_samples(self, session: Session | None, compared: str, samples: int) -> Updates:
        """Estimate the uncertainty of the networks that have dropout."""
        if session is None:
            yield {"uncertainty_note": _problem(_stale(compared))}
            return
        try:
            without = self.service.without_dropout(session)
            for view, done in self.uncertainty(session, int(samples)):
                pending = done < len(view["panels"])
                note = strings.sampling(done + 1, len(view["panels"]), samples) if pending else ""
                yield {
                    "variance": view,
                    "uncertainty_note": html.notice(" ".join(filter(None, [note, without]))),
                }
        except Exception as error:
            yield {"uncertainty_note": _reason(error)}

    # ---- the visitor's own models ----

    def add_user_model(self, slot: str, hub_id: str, replacements: Replacements) -> Updates:
        """Load the visitor's model and use it in place of one of the page's networks."""
        yield {"user_model_note": html.notice(strings.LOADING)}
        try:
            network = self.service.user_models.get(hub_id)
        except CheckpointError as error:
            yield {"user_model_note": _problem(str(error))}
        else:
            note = html.notice(strings.model_loaded(network))
            replaced = {**replacements, slot: network.source}
            yield {"replacements": replaced, "user_model_note": note}

    def reset_models(self) -> Updates:
        """Restore the page's own networks."""
        yield {"replacements": {}, "user_model_note": ""}


def _shown(shown: Shown) -> PageUpdate:
    return {
        "masks": shown.masks,
        "image_note": html.notice(shown.note),
        "areas": shown.areas,
        "table": shown.table,
        "agreement_note": html.notice(_no_agreement(shown)),
        "agreement": shown.agreement,
        "session": shown.session,
        "compared": shown.session.digest if shown.session else "",
    }


def _no_agreement(shown: Shown) -> str:
    """Explain why a complete comparison has no agreement; "" if it has one."""
    if shown.session is None or shown.agreement is not None:
        return ""
    return strings.NO_COMMON_CLASSES if len(shown.session.stored) > 1 else strings.ONE_NETWORK


# Tabs that are filled when opened, and the note that explains why a tab is empty.
NOTES: dict[str, Callable[[str], PageUpdate]] = {
    "confidence": lambda text: {"heat_note": text},
    "skips": lambda text: {"skips_note": text},
    "truth": lambda text: {"truth_note": text},
    "downloads": lambda text: {"downloads_note": text},
}


def _note(tab: str, text: str) -> PageUpdate:
    return NOTES[tab](text)


def _stale(compared: str) -> str:
    """Explain why there is no session: nothing has been compared yet, or it has expired."""
    return _expiry() if compared else strings.STALE


def _expired() -> PageUpdate:
    return {"image_note": _problem(_expiry())}


def _expiry() -> str:
    return strings.EXPIRED.format(minutes=round(KEPT_SECONDS / 60))


def _words(error: Exception) -> str:
    """Return the message to show for an error. Unexpected errors are logged and not quoted."""
    if isinstance(error, ExpiredError):
        return _expiry()
    if isinstance(error, PictureError | ViewError):
        return str(error)
    log.exception("could not compute a view")
    return strings.OUT_OF_MEMORY if isinstance(error, MemoryError) else strings.VIEW_FAILED


def _reason(error: Exception) -> str:
    """Return the notice for an error. A view that these networks lack is not a problem."""
    return html.notice(_words(error), problem=not isinstance(error, ViewError))


def _problem(text: str) -> str:
    return html.notice(text, problem=True)
