"""What the page asks for, computed: the comparison, and on request what explains it. Knows the
networks that are served, those that visitors bring, and nothing of a page."""

import logging
import statistics
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from segmodels.data.image_io import PictureError, list_images, read_image
from segmodels.data.labels import read_label
from segmodels.demo import html, strings, viewer
from segmodels.demo.downloads import class_map_file, comparison_file, files, snippet
from segmodels.demo.ground_truth import judge
from segmodels.demo.image_notes import image_notes
from segmodels.demo.scene_fit import Outside, assess, may_be_outside
from segmodels.demo.scenes import Example, ExampleFolder, Scene, in_order
from segmodels.demo.session import Session, new_session
from segmodels.demo.user_models import UserModels
from segmodels.demo.viewer import HEAT_SIZE, OtherNetwork, Truth, View
from segmodels.inference.comparison import (
    ModelFailure,
    ModelResult,
    ServedModel,
    by_scene,
    compare,
    results_of,
    share_classes,
)
from segmodels.inference.decoded_image import DecodedImage, file_digest

log = logging.getLogger(__name__)

MAX_PIXELS = 50_000_000
Answers = Sequence[ModelResult | ModelFailure]


class ViewError(ValueError):
    """A view that these networks do not have: why."""


@dataclass(frozen=True)
class Shown:
    """A comparison as far as it has got.

    note: on what of the image is not used. session: once it is complete.
    """

    masks: View
    note: str
    areas: str
    table: str
    agreement: View | None
    session: Session | None


@dataclass(frozen=True)
class Judged:
    """A comparison against a ground truth. masks: the comparison with it among the panels."""

    errors: View
    iou: str
    masks: View


class RunTimes:
    """Seconds of the last runs of each network, by the size of the image.

    The first run of a network at a size is left out: it pays for what later ones find ready.
    """

    def __init__(self, *, runs: int = 9, capacity: int = 200) -> None:
        self.runs = runs
        self.capacity = capacity
        self._seconds: OrderedDict[tuple[str, tuple[int, int]], list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def record(self, result: ModelResult) -> None:
        """A run that has just ended."""
        key = _run_key(result)
        with self._lock:
            seconds = self._seconds.get(key)
            if seconds is None:
                self._seconds[key] = []
            else:
                self._seconds[key] = [*seconds, result.seconds][-self.runs :]
            self._seconds.move_to_end(key)
            while len(self._seconds) > self.capacity:
                self._seconds.popitem(last=False)

    def medians(self, results: Sequence[ModelResult]) -> dict[str, tuple[float, int]]:
        """By source: the median of the warm runs at the result's size, and how many there were;
        networks with none are left out."""
        with self._lock:
            warm = {r.network.source: self._seconds.get(_run_key(r), []) for r in results}
        return {source: (statistics.median(s), len(s)) for source, s in warm.items() if s}

    def overall(self, sources: Sequence[str]) -> dict[str, tuple[float, int]]:
        """By source: the median of the warm runs at whatever sizes, and how many there were."""
        with self._lock:
            runs = list(self._seconds.items())
        warm = {s: [t for (own, _), ts in runs if own == s for t in ts] for s in sources}
        return {source: (statistics.median(s), len(s)) for source, s in warm.items() if s}


def _run_key(result: ModelResult) -> tuple[str, tuple[int, int]]:
    height, width = result.segmentation.class_map.shape
    return result.network.source, (height, width)


class ComparisonService:
    """The comparison, and the views of it.

    Args:
        networks: those served, each scene's at least one.
        examples: example images; `labels/` in their folder holds label images of the same stem for
            some of them, and their class names in classes.txt.
    """

    def __init__(
        self, networks: Sequence[ServedModel], examples: ExampleFolder | None = None
    ) -> None:
        scenes = by_scene(networks)
        self.scenes = {name: scenes[name] for name in in_order(list(scenes))}
        self.networks = {network.source: network for network in networks}
        self.user_models = UserModels(str(networks[0].segmenter.device))
        self.example_folder = examples or ExampleFolder(None)
        self.labels = _labels(self.example_folder.folder)
        self.run_times = RunTimes()
        self.examples_by_digest = {
            file_digest(self.example_path(example)): example for example in self.example_folder.all
        }

    def network(self, source: str) -> ServedModel:
        """A served network, or a visitor's (from the Hub again if need be)."""
        return self.networks.get(source) or self.user_models.get(source)

    def sources_of(self, scene: str, replacements: Mapping[str, str]) -> list[str]:
        """Sources of the scene's networks, in the place of some those that the visitor brought.
        replacements: Hub id by the name of the network that it replaces."""
        return [replacements.get(network.name, network.source) for network in self.scenes[scene]]

    def scene(self, name: str) -> Scene:
        """What the page says of a scene."""
        return self.example_folder.scene(name, self.scenes[name][0].model.class_names)

    def examples(self, scene: str) -> list[Example]:
        """The scene's example images."""
        return self.example_folder.examples(scene)

    def example_path(self, example: Example) -> Path:
        """Where the example's image is."""
        return self.example_folder.path(example)

    def expected_seconds(self) -> float:
        """Of a comparison, as a guess: of the first scene's networks, 1 s each until they ran."""
        sources = self.sources_of(next(iter(self.scenes)), {})
        known = self.run_times.overall(sources)
        return sum(known[source][0] if source in known else 1.0 for source in sources)

    def outside(self, session: Session) -> Outside | None:
        """Whether the image is probably of no kind that the scene's networks know. Not asked of
        networks of visitors, nor of a choice of networks of several scenes."""
        own = self.sources_of(session.scene, {})
        if list(session.sources) != own or len(self.scenes) < 2:
            return None
        results = results_of(session.answers(self.network))
        if not may_be_outside(results):
            return None
        return assess(results[0].segmentation.image, session.scene, self.scenes)

    def compare(
        self, path: str, digest: str, sources: Sequence[str], scene: str
    ) -> Iterator[Shown]:
        """At once the image, then each network's answer as it comes. digest: `file_digest(path)`.
        Raises PictureError."""
        networks = [self.network(source) for source in sources]
        image = DecodedImage(read_image(path, max_pixels=MAX_PIXELS), digest)
        url = viewer.image_url(image.image)
        note = image_notes(Path(path), image.image)
        truth = self._example_truth(digest, networks, image.image)
        answers: list[ModelResult | ModelFailure] = []

        def shown(agreement: View | None = None, session: Session | None = None) -> Shown:
            masks = self._masks(url, image.image, digest, networks, answers, truth)
            table = self.table(networks)
            return Shown(masks, note, self._plots(networks, answers), table, agreement, session)

        yield shown()
        for answer in compare(networks, image):
            answers.append(answer)
            if isinstance(answer, ModelResult):
                self.run_times.record(answer)
            if len(answers) < len(networks):
                yield shown()
        results = results_of(answers)
        size = image.array.shape[:2]
        agreement = viewer.agreement_view(url, size, results) if share_classes(results) else None
        yield shown(agreement, new_session(digest, path, scene, answers))

    def _masks(
        self,
        url: str,
        image: Image.Image,
        digest: str,
        networks: Sequence[ServedModel],
        answers: Answers,
        truth: Truth | None,
    ) -> View:
        return viewer.comparison(
            url,
            (image.height, image.width),
            networks,
            answers,
            truth=truth,
            others=self._others(networks),
            share="link" if digest in self.examples_by_digest else "image",
        )

    def _others(self, shown: Sequence[ServedModel]) -> list[OtherNetwork]:
        """The networks that are served besides."""
        sources = {network.source for network in shown}
        return [
            {
                "name": network.name,
                "title": f"{network.title} ({self.scene(network.scene).label})",
            }
            for network in self.networks.values()
            if network.source not in sources
        ]

    def run(
        self,
        path: str,
        sources: Sequence[str],
        scene: str,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> Session:
        """The same without a page to show it on. is_wanted: asked after each network; once it says
        no, the others are left out."""
        networks = [self.network(source) for source in sources]
        image = DecodedImage.read(path, max_pixels=MAX_PIXELS)
        answers = []
        for answer in compare(networks, image):
            answers.append(answer)
            if not is_wanted():
                break
        return new_session(image.digest, path, scene, answers)

    def confidence(self, session: Session) -> Iterator[View]:
        """Each network's probabilities, as they come: of the winning class, and of each class."""
        networks = [self.network(source) for source in session.sources]
        names = dict.fromkeys(name for network in networks for name in network.model.class_names)
        choices = [strings.CONFIDENCE, *names]
        image = session.image()

        def panels() -> Iterator[viewer.Panel]:
            for network in networks:
                probabilities = network.segmenter.probabilities(
                    image, working_size=_heat_size(network, image)
                )
                yield viewer.heat_panel(network, probabilities, choices)

        yield from viewer.stream_view(
            viewer.image_url(image),
            (image.height, image.width),
            [network.title for network in networks],
            panels(),
            scale=viewer.scale(100, " %", 0),
            choices=choices,
        )

    def skips(self, session: Session) -> Iterator[View]:
        """What the first FCN says at each of its prediction strides. ViewError without one."""
        networks = [self.network(source) for source in session.sources]
        found = [network for network in networks if len(network.model.prediction_strides) > 1]
        if not found:
            raise ViewError(strings.NO_FCN)
        network, image = found[0], session.image()
        strides = network.model.prediction_strides

        def panels() -> Iterator[viewer.Panel]:
            for stride in strides:
                size = _heat_size(network, image)
                stage = network.segmenter.at_stride(image, stride, working_size=size)
                yield viewer.class_panel(stage, strings.stage(stride), strings.STAGES[stride])

        yield from viewer.stream_view(
            viewer.image_url(image),
            (image.height, image.width),
            [strings.stage(stride) for stride in strides],
            panels(),
            legend=viewer.class_legend([network] * len(strides)),
            views=("overlay", "disagreement", "map", "image", "split"),
        )

    def uncertainty(self, session: Session, samples: int) -> Iterator[tuple[View, int]]:
        """Where samples of the networks with dropout vary, and how many networks are done.
        ViewError if none has dropout."""
        networks = [self.network(source) for source in session.sources]
        networks = [network for network in networks if network.model.has_dropout]
        if not networks:
            raise ViewError(strings.NO_DROPOUT)
        image = session.image()

        def panels() -> Iterator[viewer.Panel]:
            for network in networks:
                size = _heat_size(network, image)
                answer = network.segmenter(image, working_size=size, samples=samples)
                assert answer.uncertainty is not None
                yield viewer.uncertainty_panel(network, answer.uncertainty, samples)

        views = viewer.stream_view(
            viewer.image_url(image),
            (image.height, image.width),
            [network.title for network in networks],
            panels(),
            scale=viewer.scale(viewer.HIGHEST_DEVIATION, "", 2),
        )
        for done, view in enumerate(views):
            yield view, done

    def truth(self, session: Session, label: str | None) -> Judged | None:
        """The comparison against the visitor's label image or, without one, the example's; None
        without either. Raises PictureError."""
        answers = session.answers(self.network)
        networks = [answer.network for answer in answers]
        results = results_of(answers)
        first = results[0].segmentation
        if label is None:
            truth = self._example_truth(session.digest, networks, first.image)
        else:
            truth = _truth(label, first.image, first.class_names, networks)
        if truth is None:
            return None
        names, palette = truth.class_names, truth.palette
        judgements = [judge(truth.target, names, result) for result in results]
        url = viewer.image_url(first.image)
        return Judged(
            viewer.error_view(url, truth, judgements),
            html.iou_plot(judgements, names, palette),
            self._masks(url, first.image, session.digest, networks, answers, truth),
        )

    def masks(self, session: Session) -> View:
        """The comparison again, as it was first shown."""
        answers = session.answers(self.network)
        networks = [answer.network for answer in answers]
        image = session.image()
        truth = self._example_truth(session.digest, networks, image)
        url = viewer.image_url(image)
        return self._masks(url, image, session.digest, networks, answers, truth)

    def _example_truth(
        self, digest: str, networks: Sequence[ServedModel], image: Image.Image
    ) -> Truth | None:
        """The label of an example, if the first network knows its classes."""
        label, names = self.labels.get(digest, (None, None))
        if label is None:
            return None
        try:
            return _truth(label, image, names or networks[0].model.class_names, networks)
        except PictureError as error:  # an operator's
            log.warning("the label of an example is not used: %s", error)
            return None

    def downloads(self, session: Session, folder: Path) -> list[Path]:
        """The files of the comparison, written to `folder`: the archive first, the comparison as
        one image last."""
        answers = session.answers(self.network)
        return files(folder, Path(session.path).stem, session.scene, answers)

    def comparison_image(self, session: Session, folder: Path) -> Path:
        """The comparison as one image, written to `folder`."""
        results = results_of(session.answers(self.network))
        return comparison_file(folder, Path(session.path).stem, results)

    def class_map(self, session: Session, number: int, folder: Path) -> Path:
        """The class map of one panel, written to `folder`. ViewError where there is none."""
        answers = session.answers(self.network)
        answer = answers[number] if 0 <= number < len(answers) else None
        if not isinstance(answer, ModelResult):
            raise ViewError(strings.NETWORK_FAILED)
        return class_map_file(folder, Path(session.path).stem, answer)

    def snippet(self, session: Session) -> str:
        """Python that reproduces the class maps of the session."""
        answered = [answer.source for answer in session.stored if not answer.reason]
        return snippet([self.network(source) for source in answered], Path(session.path).name)

    def without_dropout(self, session: Session) -> str:
        """Which of the session's networks have no samples to draw."""
        networks = map(self.network, session.sources)
        return strings.without_dropout([n.title for n in networks if not n.model.has_dropout])

    def programs(self, address: str) -> str:
        """How programs call this server at `address`, in Markdown, with its models and scenes."""
        names = [network.name for network in self.networks.values()]
        return strings.PROGRAMS.format(
            address=address,
            model=names[0],
            models=", ".join(f"`{name}`" for name in names),
            scene=next(iter(self.scenes)),
            scenes=", ".join(f"`{scene}`" for scene in self.scenes),
        )

    def table(self, networks: Sequence[ServedModel]) -> str:
        """What there is to know of the networks."""
        timings = self.run_times.overall([network.source for network in networks])
        return html.networks_table(networks, timings)

    def _plots(self, networks: Sequence[ServedModel], answers: Answers) -> str:
        results = results_of(answers)
        if not results:
            return ""
        timings = self.run_times.medians(results)
        return html.areas_plot(networks, results) + html.speed_plot(results, timings)


def _heat_size(network: ServedModel, image: Image.Image) -> int:
    """The working size for what is only looked at: never more than the viewer shows."""
    return network.model.working_size or min(HEAT_SIZE, max(image.size))


def _truth(
    label: str, image: Image.Image, class_names: Sequence[str], networks: Sequence[ServedModel]
) -> Truth | None:
    """A label image of ids into `class_names`, in the colors of the first network; None if it does
    not know them. Raises PictureError."""
    model = networks[0].model
    if not set(class_names) <= set(model.class_names):
        return None
    palette = [model.palette[model.class_names.index(name)] for name in class_names]
    target = read_label(label, (image.height, image.width), class_names, palette)
    return Truth(target, list(class_names), [list(color) for color in palette])


def _labels(examples: Path | None) -> dict[str, tuple[str, list[str] | None]]:
    """By the digest of an example image: its label, and the label's class names; None for those of
    the networks."""
    folder = None if examples is None else examples / "labels"
    if examples is None or folder is None or not folder.is_dir():
        return {}
    classes = folder / "classes.txt"
    lines = classes.read_text(encoding="utf-8").splitlines() if classes.is_file() else []
    names = [line.strip() for line in lines if line.strip()] or None
    return {
        file_digest(image): (str(folder / f"{image.stem}.png"), names)
        for image in list_images(examples).images
        if (folder / f"{image.stem}.png").is_file()
    }
