"""The computations behind the page: the comparison, and further views of it on request.

The service knows the served networks and the visitors' own, but nothing about the page's layout.
"""

import logging
import statistics
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from segmodels.data.image_folder import list_images
from segmodels.data.image_io import PictureError, read_image
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
    """A view is not available for these networks; the message says why."""


@dataclass(frozen=True)
class Shown:
    """The current state of a comparison.

    Attributes:
        masks: The viewer's value.
        note: What was ignored in the image; "" if nothing was.
        areas: Plots of class areas and speed, as HTML.
        table: Table of the networks, as HTML.
        agreement: View of the agreement, once the comparison is complete; None if the networks
            have no classes in common.
        session: The session, once the comparison is complete.
    """

    masks: View
    note: str
    areas: str
    table: str
    agreement: View | None
    session: Session | None


@dataclass(frozen=True)
class Judged:
    """A comparison evaluated against a ground truth.

    Attributes:
        errors: View of the errors.
        iou: Plot of the IoU per class, as HTML.
        masks: The comparison, with the ground truth among the panels.
    """

    errors: View
    iou: str
    masks: View


class RunTimes:
    """Run times of each network's latest runs, by image size.

    The first run of a network at each size is excluded as a warm-up.

    Args:
        runs: Number of runs to keep per network and size.
        capacity: Number of network and size pairs to keep.
    """

    def __init__(self, *, runs: int = 9, capacity: int = 200) -> None:
        self.runs = runs
        self.capacity = capacity
        self._seconds: OrderedDict[tuple[str, tuple[int, int]], list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def record(self, result: ModelResult) -> None:
        """Record a run."""
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
        """Return by source the median seconds of the warm runs at the result's size and the number
        of these runs. Networks without warm runs are omitted."""
        with self._lock:
            warm = {r.network.source: self._seconds.get(_run_key(r), []) for r in results}
        return {source: (statistics.median(s), len(s)) for source, s in warm.items() if s}

    def overall(self, sources: Sequence[str]) -> dict[str, tuple[float, int]]:
        """Return by source the median seconds of the warm runs at all sizes and their number."""
        with self._lock:
            runs = list(self._seconds.items())
        warm = {s: [t for (own, _), ts in runs if own == s for t in ts] for s in sources}
        return {source: (statistics.median(s), len(s)) for source, s in warm.items() if s}


def _run_key(result: ModelResult) -> tuple[str, tuple[int, int]]:
    height, width = result.segmentation.class_map.shape
    return result.network.source, (height, width)


class ComparisonService:
    """Computes the comparison and the views of it.

    Args:
        networks: The served networks, at least one.
        examples: Example images. Their folder may have a subfolder `labels/` with label images of
            the same stem, and the labels' class names in classes.txt.
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
        """Return a served network or a visitor's, downloading the latter again if necessary."""
        return self.networks.get(source) or self.user_models.get(source)

    def sources_of(self, scene: str, replacements: Mapping[str, str]) -> list[str]:
        """Return the sources of the scene's networks after applying replacements.

        Args:
            scene: Name of the scene.
            replacements: Source of the replacement by the name of the replaced network.
        """
        return [replacements.get(network.name, network.source) for network in self.scenes[scene]]

    def scene(self, name: str) -> Scene:
        """Return the scene with its label and description."""
        return self.example_folder.scene(name, self.scenes[name][0].model.class_names)

    def examples(self, scene: str) -> list[Example]:
        """Return the scene's example images."""
        return self.example_folder.examples(scene)

    def example_path(self, example: Example) -> Path:
        """Return the path of the example's image."""
        return self.example_folder.path(example)

    def expected_seconds(self) -> float:
        """Estimate the seconds of a comparison in the first scene, assuming 1 s for each network
        that has not been timed yet."""
        sources = self.sources_of(next(iter(self.scenes)), {})
        known = self.run_times.overall(sources)
        return sum(known[source][0] if source in known else 1.0 for source in sources)

    def outside(self, session: Session) -> Outside | None:
        """Estimate whether the image is outside what the scene's networks were trained for.

        Returns:
            None if it is not, if any of the scene's networks has been replaced, or if there is only
            one scene.
        """
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
        """Compare networks on an image.

        Args:
            path: The image file.
            digest: `file_digest(path)`.
            sources: Sources of the networks.
            scene: Name of the scene.

        Yields:
            The comparison with the image alone, then once after each network's answer.

        Raises:
            PictureError: If the image cannot be used.
        """
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
        """Return the served networks that are not shown."""
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
        """Compare networks on an image without rendering views.

        Args:
            path: The image file.
            sources: Sources of the networks.
            scene: Name of the scene.
            is_wanted: Called after each network; if it returns False, the others are skipped.
        """
        networks = [self.network(source) for source in sources]
        image = DecodedImage.read(path, max_pixels=MAX_PIXELS)
        answers = []
        for answer in compare(networks, image):
            answers.append(answer)
            if not is_wanted():
                break
        return new_session(image.digest, path, scene, answers)

    def confidence(self, session: Session) -> Iterator[View]:
        """Yield views of each network's probabilities, of the predicted class and of each class, as
        they become available."""
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
        """Yield views of the first FCN's masks at each of its prediction strides.

        Raises:
            ViewError: If there is no FCN with skip connections.
        """
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
        """Estimate the uncertainty of the networks that have dropout.

        Args:
            session: The comparison.
            samples: Number of samples per network.

        Yields:
            The view and the number of networks that are done.

        Raises:
            ViewError: If no network has dropout.
        """
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
        """Evaluate the comparison against a label image.

        Args:
            session: The comparison.
            label: The visitor's label image; None for that of the example.

        Returns:
            None if there is no label image, or the first network does not have its classes.

        Raises:
            PictureError: If the label image cannot be used.
        """
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
        """Return the comparison as it was first shown."""
        answers = session.answers(self.network)
        networks = [answer.network for answer in answers]
        image = session.image()
        truth = self._example_truth(session.digest, networks, image)
        url = viewer.image_url(image)
        return self._masks(url, image, session.digest, networks, answers, truth)

    def _example_truth(
        self, digest: str, networks: Sequence[ServedModel], image: Image.Image
    ) -> Truth | None:
        """Return the label of an example if the first network has its classes."""
        label, names = self.labels.get(digest, (None, None))
        if label is None:
            return None
        try:
            return _truth(label, image, names or networks[0].model.class_names, networks)
        except PictureError as error:  # in an operator's folder
            log.warning("ignoring the label of an example: %s", error)
            return None

    def downloads(self, session: Session, folder: Path) -> list[Path]:
        """Write the files of the comparison to `folder` and return their paths: the archive first,
        the comparison as a single image last."""
        answers = session.answers(self.network)
        return files(folder, Path(session.path).stem, session.scene, answers)

    def comparison_image(self, session: Session, folder: Path) -> Path:
        """Write the comparison as a single image to `folder`."""
        results = results_of(session.answers(self.network))
        return comparison_file(folder, Path(session.path).stem, results)

    def class_map(self, session: Session, number: int, folder: Path) -> Path:
        """Write the class map of one panel to `folder`.

        Raises:
            ViewError: If the panel has no class map.
        """
        answers = session.answers(self.network)
        answer = answers[number] if 0 <= number < len(answers) else None
        if not isinstance(answer, ModelResult):
            raise ViewError(strings.NETWORK_FAILED)
        return class_map_file(folder, Path(session.path).stem, answer)

    def snippet(self, session: Session) -> str:
        """Return Python code that reproduces the class maps of the session."""
        answered = [answer.source for answer in session.stored if not answer.reason]
        return snippet([self.network(source) for source in answered], Path(session.path).name)

    def without_dropout(self, session: Session) -> str:
        """List the session's networks that have no dropout; "" if there are none."""
        networks = map(self.network, session.sources)
        return strings.without_dropout([n.title for n in networks if not n.model.has_dropout])

    def programs(self, address: str) -> str:
        """Return instructions for calling the API at `address`, as Markdown."""
        names = [network.name for network in self.networks.values()]
        return strings.PROGRAMS.format(
            address=address,
            model=names[0],
            models=", ".join(f"`{name}`" for name in names),
            scene=next(iter(self.scenes)),
            scenes=", ".join(f"`{scene}`" for scene in self.scenes),
        )

    def table(self, networks: Sequence[ServedModel]) -> str:
        """Return the table that describes the networks, as HTML."""
        timings = self.run_times.overall([network.source for network in networks])
        return html.networks_table(networks, timings)

    def _plots(self, networks: Sequence[ServedModel], answers: Answers) -> str:
        results = results_of(answers)
        if not results:
            return ""
        timings = self.run_times.medians(results)
        return html.areas_plot(networks, results) + html.speed_plot(results, timings)


def _heat_size(network: ServedModel, image: Image.Image) -> int:
    """Return the working size for views: the network's own, or at most what the viewer shows."""
    model = network.model
    return model.working_size or min(HEAT_SIZE, model.longer_side_for(image.size))


def _truth(
    label: str, image: Image.Image, class_names: Sequence[str], networks: Sequence[ServedModel]
) -> Truth | None:
    """Read a label image of ids into `class_names`, with the colours of the first network.

    Returns:
        None if the first network does not have all of the classes.

    Raises:
        PictureError: If the label image cannot be used.
    """
    model = networks[0].model
    if not set(class_names) <= set(model.class_names):
        return None
    palette = [model.palette[model.class_names.index(name)] for name in class_names]
    target = read_label(label, (image.height, image.width), class_names, palette)
    return Truth(target, list(class_names), [list(color) for color in palette])


def _labels(examples: Path | None) -> dict[str, tuple[str, list[str] | None]]:
    """Return the label path and class names by the digest of the example image. The names are None
    if there is no classes.txt; then those of the networks apply."""
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
