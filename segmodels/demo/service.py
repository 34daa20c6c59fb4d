"""What the page asks for, computed: the comparison, and on request what explains it. Knows the
networks that are served, those that visitors bring, and nothing of a page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segmodels.data.image_io import read_picture
from segmodels.demo import html, strings, viewer
from segmodels.demo.downloads import comparison_file, files, snippet
from segmodels.demo.ground_truth import judge, read_label
from segmodels.demo.session import Session, digest_of, new_session
from segmodels.demo.user_models import UserModels
from segmodels.demo.viewer import HEAT_SIZE, View
from segmodels.inference.comparison import (
    ModelFailure,
    ModelResult,
    ServedModel,
    by_scene,
    compare,
    results_of,
)

MAX_PIXELS = 50_000_000


class ViewError(ValueError):
    """A view that these networks do not have: why."""


@dataclass(frozen=True)
class Shown:
    """A comparison as far as it has got. session: once it is complete."""

    masks: View
    areas: str
    agreement: View | None
    session: Session | None


class ComparisonService:
    """networks: those served, each scene's at least one. labels: a folder of label pictures
    for example pictures of the same stem, with their class names in classes.txt."""

    def __init__(self, networks: Sequence[ServedModel], examples: Path | None = None) -> None:
        self.scenes = by_scene(networks)
        self.networks = {network.source: network for network in networks}
        self.user_models = UserModels(str(networks[0].segmenter.device))
        self.labels = _labels(examples)

    def network(self, source: str) -> ServedModel:
        """A served network, or a visitor's (from the Hub again if need be)."""
        return self.networks.get(source) or self.user_models.get(source)

    def sources_of(self, scene: str, replacements: Mapping[str, str]) -> list[str]:
        """Sources of the scene's networks, in the place of some those that the visitor brought.
        replacements: Hub id by the name of the network that it replaces."""
        return [replacements.get(network.name, network.source) for network in self.scenes[scene]]

    def compare(self, path: str, sources: Sequence[str], scene: str) -> Iterator[Shown]:
        """At once the picture, then each network's answer as it comes. Raises PictureError."""
        networks = [self.network(source) for source in sources]
        picture = read_picture(path, max_pixels=MAX_PIXELS)
        url, size = viewer.picture_url(picture), picture.shape[:2]
        answers: list[ModelResult | ModelFailure] = []
        yield Shown(viewer.comparison(url, size, networks, answers), "", None, None)
        for answer in compare(networks, picture):
            answers.append(answer)
            if len(answers) < len(networks):
                masks = viewer.comparison(url, size, networks, answers)
                yield Shown(masks, _plots(networks, answers), None, None)
        results = results_of(answers)
        agreement = viewer.agreement_view(url, size, results) if len(results) > 1 else None
        session = new_session(digest_of(path), path, scene, answers)
        masks = viewer.comparison(url, size, networks, answers)
        yield Shown(masks, _plots(networks, answers), agreement, session)

    def run(self, path: str, sources: Sequence[str], scene: str) -> Session:
        """The same without a page to show it on."""
        networks = [self.network(source) for source in sources]
        answers = list(compare(networks, path, max_pixels=MAX_PIXELS))
        return new_session(digest_of(path), path, scene, answers)

    def confidence(self, session: Session) -> Iterator[View]:
        """Each network's probabilities, as they come: of the winning class, and of each class."""
        networks = [self.network(source) for source in session.sources]
        names = dict.fromkeys(name for network in networks for name in network.model.class_names)
        choices = [strings.CONFIDENCE, *names]
        picture, url = self._picture(session)

        def panels() -> Iterator[viewer.Panel]:
            for network in networks:
                probabilities = network.segmenter.probabilities(
                    picture, working_size=_heat_size(network, picture.shape)
                )
                yield viewer.heat_panel(network, probabilities, choices)

        yield from viewer.stream_view(
            url,
            picture.shape,
            [network.title for network in networks],
            panels(),
            scale=viewer.scale(100, " %", 0),
            choices=choices,
        )

    def skips(self, session: Session) -> Iterator[View]:
        """What the first FCN says at each of its prediction strides. ViewError without one."""
        networks = [self.network(source) for source in session.sources]
        found = [network for network in networks if _has_skips(network)]
        if not found:
            raise ViewError(strings.NO_FCN)
        network, (picture, url) = found[0], self._picture(session)
        strides = network.model.prediction_strides

        def panels() -> Iterator[viewer.Panel]:
            for stride in strides:
                size = _heat_size(network, picture.shape)
                stage = network.segmenter.at_stride(picture, stride, working_size=size)
                yield viewer.class_panel(stage, strings.stage(stride), strings.STAGES[stride])

        yield from viewer.stream_view(
            url,
            picture.shape,
            [strings.stage(stride) for stride in strides],
            panels(),
            legend=viewer.class_legend([network] * len(strides)),
        )

    def uncertainty(self, session: Session, samples: int) -> Iterator[View]:
        """Where samples of the networks with dropout vary. ViewError if there is none."""
        networks = [self.network(source) for source in session.sources]
        networks = [network for network in networks if has_dropout(network)]
        if not networks:
            raise ViewError(strings.NO_DROPOUT)
        picture, url = self._picture(session)

        def panels() -> Iterator[viewer.Panel]:
            for network in networks:
                size = _heat_size(network, picture.shape)
                answer = network.segmenter(picture, working_size=size, samples=samples)
                assert answer.uncertainty is not None
                yield viewer.uncertainty_panel(network, answer.uncertainty, samples)

        yield from viewer.stream_view(
            url,
            picture.shape,
            [network.title for network in networks],
            panels(),
            scale=viewer.scale(viewer.HIGHEST_DEVIATION, "", 2),
        )

    def truth(self, session: Session, label: str | None) -> tuple[View, str] | None:
        """The errors, and a plot of the IoU, against the visitor's label picture or, without one,
        the example's; None without either. Raises PictureError."""
        results = results_of(session.answers(self.network))
        first = results[0].segmentation
        names, palette = first.class_names, first.palette
        if label is None:
            label, names = self.labels.get(session.digest, (None, names))
            if label is None or not set(names) <= set(first.class_names):
                return None
            palette = [first.palette[first.class_names.index(name)] for name in names]
        target = read_label(label, first.class_map.shape, names, palette)
        judgements = [judge(target, names, result) for result in results]
        url = viewer.picture_url(first.picture)
        return (
            viewer.error_view(url, target, names, palette, judgements),
            html.iou_plot(judgements, names, palette),
        )

    def take(self, session: Session, folder: Path) -> tuple[Path, list[Path]]:
        """The comparison as one PNG, and the other files to take away, written to `folder`."""
        answers = session.answers(self.network)
        stem = Path(session.path).stem
        return (
            comparison_file(folder, stem, results_of(answers)),
            files(folder, stem, session.scene, answers),
        )

    def snippet(self, session: Session) -> str:
        """Python that reproduces the class-id pictures of the session."""
        answered = [answer.source for answer in session.stored if not answer.reason]
        return snippet([self.network(source) for source in answered], Path(session.path).name)

    def without_dropout(self, session: Session) -> str:
        """Which of the session's networks have no samples to draw."""
        networks = map(self.network, session.sources)
        return strings.without_dropout([n.title for n in networks if not has_dropout(n)])

    def programs(self) -> str:
        """How programs ask, in Markdown, with this service's models and scenes."""
        names = [network.name for network in self.networks.values()]
        return strings.PROGRAMS.format(
            model=names[0],
            models=", ".join(f"`{name}`" for name in names),
            scene=next(iter(self.scenes)),
            scenes=", ".join(f"`{scene}`" for scene in self.scenes),
        )

    @staticmethod
    def _picture(session: Session) -> tuple[Any, str]:
        """The session's picture, and its data URL."""
        picture = np.asarray(session.image())
        return picture, viewer.picture_url(picture)


def has_dropout(network: ServedModel) -> bool:
    return network.model.has_dropout


def _has_skips(network: ServedModel) -> bool:
    return len(network.model.prediction_strides) > 1


def _heat_size(network: ServedModel, shape: Sequence[int]) -> int:
    """The working size for what is only looked at: never more than the viewer shows."""
    return network.model.working_size or min(HEAT_SIZE, max(shape[:2]))


def _plots(networks: Sequence[ServedModel], answers: Sequence[ModelResult | ModelFailure]) -> str:
    results = results_of(answers)
    if not results:
        return ""
    return html.areas_plot(networks, results) + html.seconds_plot(results)


def _labels(examples: Path | None) -> dict[str, tuple[str, list[str]]]:
    """By the digest of an example picture: its label, and the label's class names."""
    folder = None if examples is None else examples / "labels"
    if examples is None or folder is None or not folder.is_dir():
        return {}
    names = (folder / "classes.txt").read_text(encoding="utf-8").split()
    return {
        digest_of(picture): (str(folder / f"{picture.stem}.png"), names)
        for picture in sorted(examples.glob("*.jpg"))
        if (folder / f"{picture.stem}.png").is_file()
    }
