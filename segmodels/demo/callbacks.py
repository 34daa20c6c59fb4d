"""What happens when the page is used: each action yields what changes, by the component's name."""

import functools
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from segmodels.data.image_io import PictureError
from segmodels.demo import html, strings
from segmodels.demo.service import Host, Shown, ViewError
from segmodels.demo.session import Visit, digest_of
from segmodels.demo.viewer import View
from segmodels.hub.checkpoint import CheckpointError

log = logging.getLogger(__name__)

Changes = dict[str, Any]
Guests = dict[str, str]  # Hub id by the name of the network that it replaces

# Tabs that are filled when they are open, and where each says why it is not.
FILLED_WHEN_OPEN = {
    "confidence": "heat_note",
    "skips": "skips_note",
    "truth": "truth_note",
    "take": "take_note",
}

# Every component that follows from a comparison, and what it holds without one.
CLEARED: Changes = {
    **dict.fromkeys(["masks", "agreement", "heat", "stages", "variance", "errors"]),
    **dict.fromkeys(["visit", "shared", "files", "code"]),
    **dict.fromkeys(["areas", "iou", "picture_note", "uncertainty_note"], ""),
    **dict.fromkeys(FILLED_WHEN_OPEN.values(), ""),
    "filled": [],
}


class Actions:
    """on_gpu: wraps what runs networks, where a GPU must be asked for."""

    def __init__(
        self, host: Host, welcome: Path, on_gpu: Callable[[Any], Any] = lambda function: function
    ) -> None:
        self.host = host
        self.welcome_picture = welcome
        self._first_visit = threading.Lock()
        self.compare: Callable[..., Iterator[Shown]] = on_gpu(host.compare)
        self.confidence: Callable[[Visit], Iterator[View]] = on_gpu(host.confidence)
        self.skips: Callable[[Visit], Iterator[View]] = on_gpu(host.skips)
        self.uncertainty: Callable[[Visit, int], Iterator[View]] = on_gpu(host.uncertainty)

    def welcome(self) -> Changes:
        """An example, compared once for all visitors."""
        with self._first_visit:
            return {"picture": str(self.welcome_picture), **_shown(self._welcome)}

    @functools.cached_property
    def _welcome(self) -> Shown:
        scene = next(iter(self.host.scenes))
        sources = self.host.line_up(scene, {})
        return list(self.compare(str(self.welcome_picture), sources, scene))[-1]

    def run(
        self, path: str | None, scene: str, guests: Guests, visit: Visit | None, tab: str
    ) -> Iterator[Changes]:
        """Compare, unless that is what the page shows; then fill the open tab."""
        if path is None:
            yield CLEARED
            return
        try:
            sources = self.host.line_up(scene, guests)
            if visit and visit.asked == (digest_of(path), scene, tuple(sources)):
                return
            yield CLEARED
            for shown in self.compare(path, sources, scene):
                yield _shown(shown)
        except (PictureError, CheckpointError) as error:
            yield {**CLEARED, "picture_note": _problem(strings.unusable(error))}
        else:
            yield from self.fill(tab, shown.visit, [])

    def run_again(
        self, path: str | None, scene: str, guests: Guests, _: Visit | None, tab: str
    ) -> Iterator[Changes]:
        """Compare, whatever the page shows."""
        yield from self.run(path, scene, guests, None, tab)
        if path is None:
            yield {"picture_note": _problem(strings.NO_PICTURE)}

    def fill(self, tab: str, visit: Visit | None, filled: list[str]) -> Iterator[Changes]:
        """What the open tab shows of the comparison: computed when it is looked at."""
        if tab not in FILLED_WHEN_OPEN or tab in filled:
            return
        if visit is None or not visit.answered:
            yield {FILLED_WHEN_OPEN[tab]: html.notice(strings.STALE)}
            return
        try:
            if tab == "confidence":
                yield from ({"heat": view} for view in self.confidence(visit))
            elif tab == "skips":
                yield from ({"stages": view} for view in self.skips(visit))
            elif tab == "truth" and (judged := self.host.truth(visit, None)):
                yield _judged(judged)
            elif tab == "take":
                yield from self._taken(visit)
            yield {"filled": [*filled, tab]}
        except Exception as error:
            yield {FILLED_WHEN_OPEN[tab]: _reason(error)}

    def _taken(self, visit: Visit) -> Iterator[Changes]:
        yield {"code": self.host.snippet(visit), "take_note": html.notice(strings.PREPARING)}
        with tempfile.TemporaryDirectory() as folder:
            shared, files = self.host.take(visit, Path(folder))
            paths = [str(file) for file in (shared, *files)]
            yield {"shared": str(shared), "files": paths, "take_note": ""}

    def judge(self, label: str | None, visit: Visit | None) -> Iterator[Changes]:
        """Against the label picture that the visitor gave, or took away."""
        if visit is None or not visit.answered:
            yield {"truth_note": _problem(strings.STALE) if label else ""}
            return
        try:
            yield _judged(self.host.truth(visit, label))
        except PictureError as error:
            yield {"errors": None, "iou": "", "truth_note": _problem(str(error))}

    def draw_samples(self, visit: Visit | None, samples: int) -> Iterator[Changes]:
        """The uncertainty of the networks with dropout."""
        if visit is None:
            yield {"uncertainty_note": _problem(strings.STALE)}
            return
        try:
            yield {"uncertainty_note": html.notice(self.host.without_dropout(visit))}
            yield from ({"variance": view} for view in self.uncertainty(visit, int(samples)))
        except Exception as error:
            yield {"uncertainty_note": _reason(error)}

    def invite(self, slot: str, hub_id: str, guests: Guests) -> Iterator[Changes]:
        """A network of the visitor's in the place of one of the page's."""
        yield {"guest_note": html.notice(strings.LOADING)}
        try:
            network = self.host.guests.get(hub_id)
        except CheckpointError as error:
            yield {"guest_note": _problem(str(error))}
        else:
            note = html.notice(strings.welcome(network))
            yield {"guests": {**guests, slot: network.source}, "guest_note": note}

    def send_away(self) -> Iterator[Changes]:
        """The page's own networks again."""
        yield {"guests": {}, "guest_note": ""}


def _shown(shown: Shown) -> Changes:
    return {
        "masks": shown.masks,
        "areas": shown.areas,
        "agreement": shown.agreement,
        "visit": shown.visit,
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
