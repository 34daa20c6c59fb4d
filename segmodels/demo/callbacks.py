"""What happens when the page is used: a callback yields what changes, by the component's name."""

import functools
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from segmodels.data.image_io import PictureError
from segmodels.demo import html, strings
from segmodels.demo.service import ComparisonService, Shown, ViewError
from segmodels.demo.session import Session, digest_of
from segmodels.demo.viewer import View
from segmodels.hub.checkpoint import CheckpointError

log = logging.getLogger(__name__)

Changes = dict[str, Any]
Replacements = dict[str, str]  # Hub id by the name of the network that it replaces

# Tabs that are filled when they are open, and where each says why it is not.
FILLED_WHEN_OPEN = {
    "confidence": "heat_note",
    "skips": "skips_note",
    "truth": "truth_note",
    "downloads": "downloads_note",
}

# Every component that follows from a comparison, and what it holds without one.
CLEARED: Changes = {
    **dict.fromkeys(["masks", "agreement", "heat", "stages", "variance", "errors"]),
    **dict.fromkeys(["session", "shared", "files", "code"]),
    **dict.fromkeys(["areas", "iou", "picture_note", "uncertainty_note"], ""),
    **dict.fromkeys(FILLED_WHEN_OPEN.values(), ""),
    "filled": [],
}


class Callbacks:
    """on_gpu: wraps what runs networks, where a GPU must be asked for."""

    def __init__(
        self,
        service: ComparisonService,
        welcome: Path,
        on_gpu: Callable[[Any], Any] = lambda function: function,
    ) -> None:
        self.service = service
        self.welcome_picture = welcome
        self._first_visit = threading.Lock()
        self.compare: Callable[..., Iterator[Shown]] = on_gpu(service.compare)
        self.confidence: Callable[[Session], Iterator[View]] = on_gpu(service.confidence)
        self.skips: Callable[[Session], Iterator[View]] = on_gpu(service.skips)
        self.uncertainty: Callable[[Session, int], Iterator[View]] = on_gpu(service.uncertainty)

    def welcome(self) -> Changes:
        """An example, compared once for all visitors."""
        with self._first_visit:
            return {"picture": str(self.welcome_picture), **_shown(self._welcome)}

    @functools.cached_property
    def _welcome(self) -> Shown:
        scene = next(iter(self.service.scenes))
        sources = self.service.sources_of(scene, {})
        return list(self.compare(str(self.welcome_picture), sources, scene))[-1]

    def run(
        self,
        path: str | None,
        scene: str,
        replacements: Replacements,
        session: Session | None,
        tab: str,
    ) -> Iterator[Changes]:
        """Compare, unless that is what the page shows; then fill the open tab."""
        if path is None:
            yield CLEARED
            return
        try:
            sources = self.service.sources_of(scene, replacements)
            if session and session.key == (digest_of(path), scene, tuple(sources)):
                return
            yield CLEARED
            for shown in self.compare(path, sources, scene):
                yield _shown(shown)
        except (PictureError, CheckpointError) as error:
            yield {**CLEARED, "picture_note": _problem(strings.unusable(error))}
        else:
            yield from self.fill(tab, shown.session, [])

    def run_again(
        self, path: str | None, scene: str, replacements: Replacements, _: Session | None, tab: str
    ) -> Iterator[Changes]:
        """Compare, whatever the page shows."""
        yield from self.run(path, scene, replacements, None, tab)
        if path is None:
            yield {"picture_note": _problem(strings.NO_PICTURE)}

    def fill(self, tab: str, session: Session | None, filled: list[str]) -> Iterator[Changes]:
        """What the open tab shows of the comparison: computed when it is looked at."""
        if tab not in FILLED_WHEN_OPEN or tab in filled:
            return
        if session is None or not session.has_results:
            yield {FILLED_WHEN_OPEN[tab]: html.notice(strings.STALE)}
            return
        try:
            if tab == "confidence":
                yield from ({"heat": view} for view in self.confidence(session))
            elif tab == "skips":
                yield from ({"stages": view} for view in self.skips(session))
            elif tab == "truth" and (judged := self.service.truth(session, None)):
                yield _judged(judged)
            elif tab == "downloads":
                yield from self._taken(session)
            yield {"filled": [*filled, tab]}
        except Exception as error:
            yield {FILLED_WHEN_OPEN[tab]: _reason(error)}

    def _taken(self, session: Session) -> Iterator[Changes]:
        yield {
            "code": self.service.snippet(session),
            "downloads_note": html.notice(strings.PREPARING),
        }
        with tempfile.TemporaryDirectory() as folder:
            shared, files = self.service.take(session, Path(folder))
            paths = [str(file) for file in (shared, *files)]
            yield {"shared": str(shared), "files": paths, "downloads_note": ""}

    def judge(self, label: str | None, session: Session | None) -> Iterator[Changes]:
        """Against the label picture that the visitor gave, or took away."""
        if session is None or not session.has_results:
            yield {"truth_note": _problem(strings.STALE) if label else ""}
            return
        try:
            yield _judged(self.service.truth(session, label))
        except PictureError as error:
            yield {"errors": None, "iou": "", "truth_note": _problem(str(error))}

    def draw_samples(self, session: Session | None, samples: int) -> Iterator[Changes]:
        """The uncertainty of the networks with dropout."""
        if session is None:
            yield {"uncertainty_note": _problem(strings.STALE)}
            return
        try:
            yield {"uncertainty_note": html.notice(self.service.without_dropout(session))}
            yield from ({"variance": view} for view in self.uncertainty(session, int(samples)))
        except Exception as error:
            yield {"uncertainty_note": _reason(error)}

    def add_user_model(
        self, slot: str, hub_id: str, replacements: Replacements
    ) -> Iterator[Changes]:
        """A network of the visitor's in the place of one of the page's."""
        yield {"user_model_note": html.notice(strings.LOADING)}
        try:
            network = self.service.user_models.get(hub_id)
        except CheckpointError as error:
            yield {"user_model_note": _problem(str(error))}
        else:
            note = html.notice(strings.welcome(network))
            yield {"replacements": {**replacements, slot: network.source}, "user_model_note": note}

    def reset_models(self) -> Iterator[Changes]:
        """The page's own networks again."""
        yield {"replacements": {}, "user_model_note": ""}


def _shown(shown: Shown) -> Changes:
    return {
        "masks": shown.masks,
        "areas": shown.areas,
        "agreement": shown.agreement,
        "session": shown.session,
    }


def _judged(judged: tuple[View, str] | None) -> Changes:
    view, plot = judged or (None, "")
    return {"errors": view, "iou": plot, "truth_note": ""}


def _reason(error: Exception) -> str:
    """What is said of an error: ours are meant for the visitor, others are logged."""
    if isinstance(error, PictureError | ViewError):
        return html.notice(str(error))
    log.exception("a view failed")
    return _problem(strings.failed_view(error))


def _problem(text: str) -> str:
    return html.notice(text, problem=True)
