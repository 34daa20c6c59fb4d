"""The scenes of the page, with their labels, descriptions and example images.

Operators can provide their own examples in a folder (SEGMODELS_EXAMPLES) with images, label images
of the same stem in `labels/`, and texts in `examples.json`. All entries are optional:

    {"introduction": "...", "scenes": {"own": {"label": "...", "description": "..."}},
     "examples": [{"file": "a.png", "title": "...", "caption": "...", "scene": "own",
                   "notes": [{"text": "...", "x": 0.3, "y": 0.6, "zoom": 4}]}]}
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segmodels.data.image_folder import list_images

EXAMPLES_VARIABLE = "SEGMODELS_EXAMPLES"
WORDS_NAME = "examples.json"


class ExamplesError(ValueError):
    """A folder of examples is missing or invalid."""


@dataclass(frozen=True)
class Note:
    """A point of interest in an example.

    Attributes:
        text: What to look for there.
        x: Distance from the left, as a fraction of the width.
        y: Distance from the top, as a fraction of the height.
        zoom: Zoom factor.
        tab: The tab that shows it best; "" for the masks.
    """

    text: str
    x: float
    y: float
    zoom: float = 4.0
    tab: str = ""


@dataclass(frozen=True)
class Example:
    """An example image.

    Attributes:
        file: File name in the folder of examples.
        title: Title, in tooltips and for screen readers.
        caption: What to look for in the masks.
        notes: Points of interest.
    """

    file: str
    title: str
    caption: str
    notes: tuple[Note, ...] = ()

    @property
    def key(self) -> str:
        """Key of the example in the page's address: its file name without the suffix."""
        return Path(self.file).stem


@dataclass(frozen=True)
class Scene:
    """A kind of image that some of the served networks were trained for.

    Attributes:
        label: Name on the page.
        description: What its networks were trained on.
        examples: Example images; the first is shown when the page opens.
    """

    label: str
    description: str
    examples: tuple[Example, ...] = ()


ROAD_EXAMPLES = (
    Example(
        "avenue.jpg",
        "Avenue",
        "Very similar to the training images.",
        (
            Note("Lamp posts: whole or in pieces?", 0.275, 0.47),
            Note("Sign or pole?", 0.163, 0.37),
            Note("Distant pavement", 0.93, 0.58),
            Note("32s loses the posts, 8s recovers them", 0.275, 0.47, 3, "skips"),
        ),
    ),
    Example(
        "crossing.jpg",
        "Crossing",
        "Thin poles, and a car in the shade.",
        (
            Note("The pole of the stop sign", 0.395, 0.72),
            Note("Distant poles", 0.17, 0.45),
            Note("32s loses the pole, 8s recovers it", 0.395, 0.72, 3, "skips"),
        ),
    ),
    Example(
        "street.jpg",
        "Street in Delhi",
        "CamVid has no rickshaw class, so each network has to choose another.",
        (
            Note("The rickshaw", 0.47, 0.68, 3),
            Note("Motorcycles: car or bicyclist?", 0.75, 0.5, 3),
        ),
    ),
    Example(
        "cyclists.jpg",
        "Cyclists",
        "Where does one person end and the next begin?",
        (
            Note("Rider and bicycle: one class", 0.57, 0.5, 2.5),
            Note("Pedestrians in a crowd", 0.15, 0.5, 3),
        ),
    ),
    Example(
        "highway.jpg",
        "Highway",
        "No training image shows bare mountains; they are classified as buildings or trees.",
        (
            Note("There is no mountain class", 0.75, 0.3, 2.5),
            Note("People at the edge", 0.84, 0.66, 5),
        ),
    ),
    Example(
        "bridge.jpg",
        "Bridge",
        "A pale, empty bridge: what is road, what is pavement?",
        (
            Note("Distant people", 0.45, 0.51),
            Note("A lamp post against the sky", 0.11, 0.22),
        ),
    ),
)
PEOPLE_AND_ANIMALS_EXAMPLES = (
    Example("dogs.jpg", "Two dogs", "Two dogs, and people of whom only the legs are visible."),
    Example("cat.jpg", "Cat", "The face fills the image; the body gives no context."),
    Example("astronaut.jpg", "Astronaut", "The suit hides the usual outline of a person."),
    Example(
        "cyclists.jpg",
        "Cyclists",
        "Many people who partly hide each other.",
        (Note("A rider, but no bicycle class", 0.57, 0.5, 2.5),),
    ),
    Example("street.jpg", "Street in Delhi", "People on foot, on a rickshaw and on motorcycles."),
    Example(
        "bridge.jpg",
        "Bridge",
        "People only a few pixels tall: which network still finds them?",
        (Note("Distant people", 0.45, 0.51),),
    ),
)
BIOMEDICAL_EXAMPLES = (
    Example(
        "retina.jpg",
        "Retina",
        "Vessels down to a pixel wide: which network follows them?",
        (Note("The macula, dark but no vessel", 0.49, 0.49),),
    ),
    Example("nuclei.jpg", "Stained nuclei", "Touching nuclei: which network keeps them apart?"),
    Example("nuclei-dark.png", "Fluorescence", "Bright and dim nuclei of very different sizes."),
    Example(
        "nuclei-many.png", "Round nuclei", "Clear outlines, far apart: the easiest of these images."
    ),
    Example("nuclei-tissue.jpg", "Tissue", "A few nuclei, and a red band that is not one."),
    Example("cells.jpg", "Whole cells", "Cells with their nuclei, clustered and isolated."),
)

# In the order shown on the page.
SCENES = {
    "road": Scene(
        "Road",
        "Streets seen from a car: the 11 CamVid classes. Anything else is assigned to one of them.",
        ROAD_EXAMPLES,
    ),
    "animals": Scene(
        "People and animals",
        "Cat, dog, horse, cow, sheep and person; everything else is background.",
        PEOPLE_AND_ANIMALS_EXAMPLES,
    ),
    "biomedical": Scene(
        "Biomedical",
        "Microscopy and retinal images: nuclei, blood cells, cell membranes and vessels.",
        BIOMEDICAL_EXAMPLES,
    ),
    "everyday": Scene(
        "Everyday",
        "Animals, buildings, vehicles, faces and objects: the 21 MSRC classes. Images of one or "
        "two large objects work best.",
        PEOPLE_AND_ANIMALS_EXAMPLES,
    ),
    "own": Scene("Own networks", "The networks this server was started with."),
}


def scene_of(name: str) -> Scene:
    """Return the scene of this name, or the generic "own" scene for other names."""
    return SCENES.get(name, SCENES["own"])


def in_order(names: list[str]) -> list[str]:
    """Sort scene names in page order; other scenes follow in their given order."""
    order = list(SCENES)
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


class ExampleFolder:
    """The example images of a folder, and the page's texts about them and the scenes.

    Args:
        folder: Folder of images; None for no examples.
        is_own: The folder is an operator's. Its images replace the package's examples and are
            offered in all scenes, unless `examples.json` assigns them to one.

    Raises:
        ExamplesError: If `examples.json` is invalid.
    """

    def __init__(self, folder: Path | None, *, is_own: bool = False) -> None:
        self.folder = folder
        self._words = _words(folder) if folder and is_own else {}
        self._own = _own_examples(folder, self._words) if folder and is_own else None

    @property
    def introduction(self) -> str | None:
        """The operator's introduction at the top of the page; None if there is none."""
        return self._words.get("introduction")

    def scene(self, name: str, class_names: list[str]) -> Scene:
        """Return the scene with the operator's texts, if any.

        Args:
            name: Name of the scene.
            class_names: Class names of the scene's networks.
        """
        scene = scene_of(name)
        if name not in SCENES:
            scene = replace(scene, label=f"Own: {', '.join(class_names[:3])}")
        if name not in SCENES or name == "own":
            listed = ", ".join(class_names[:12]) + (", …" if len(class_names) > 12 else "")
            scene = replace(scene, description=f"{scene.description} Classes: {listed}.")
        words = self._words.get("scenes", {}).get(name, {})
        return replace(
            scene,
            label=str(words.get("label", scene.label)),
            description=str(words.get("description", scene.description)),
        )

    def examples(self, scene: str) -> list[Example]:
        """Return a scene's examples whose files exist; for own networks, those of all scenes."""
        if self.folder is None:
            return []
        if self._own is not None:
            return [example for example, only in self._own if only in (None, scene)]
        examples = scene_of(scene).examples or _one_of_each_file()
        return [example for example in examples if (self.folder / example.file).is_file()]

    def path(self, example: Example) -> Path:
        """Return the path of the example's image."""
        assert self.folder is not None
        return self.folder / example.file

    @property
    def all(self) -> list[Example]:
        """The examples of all scenes."""
        if self._own is not None:
            return [example for example, _ in self._own]
        return [example for example in _one_of_each_file() if self._is_there(example)]

    def _is_there(self, example: Example) -> bool:
        return self.folder is not None and self.path(example).is_file()


def example_folder(default: Path) -> ExampleFolder:
    """Return the operator's folder of examples, or else the one in the repository.

    Raises:
        ExamplesError: If SEGMODELS_EXAMPLES is not a folder, or its `examples.json` is invalid.
    """
    named = os.environ.get(EXAMPLES_VARIABLE, "").strip()
    if not named:
        return ExampleFolder(default if default.is_dir() else None)
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise ExamplesError(f"{EXAMPLES_VARIABLE} is {named!r}; expected a folder of images")
    return ExampleFolder(folder, is_own=True)


def _one_of_each_file() -> tuple[Example, ...]:
    first: dict[str, Example] = {}
    for scene in SCENES.values():
        for example in scene.examples:
            first.setdefault(example.file, example)
    return tuple(first.values())


def _words(folder: Path) -> dict[str, Any]:
    path = folder / WORDS_NAME
    if not path.is_file():
        return {}
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExamplesError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(words, dict):
        raise ExamplesError(f"{path} contains a {type(words).__name__}; expected an object")
    return words


def _own_examples(folder: Path, words: Mapping[str, Any]) -> list[tuple[Example, str | None]]:
    """Return the examples listed in `examples.json`, in order, then all other images."""
    listed: dict[str, tuple[Example, str | None]] = {}
    for entry in words.get("examples", []):
        try:
            file = str(entry["file"])
            notes = tuple(Note(**note) for note in entry.get("notes", []))
            title = str(entry.get("title", _title(file)))
            listed[file] = (
                Example(file, title, str(entry.get("caption", "")), notes),
                entry.get("scene"),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ExamplesError(
                f"{folder / WORDS_NAME}: {entry!r} is not a valid example; expected an object with "
                '"file" and optionally "title", "caption", "scene" and "notes"'
            ) from error
        if not (folder / file).is_file():
            raise ExamplesError(f"{folder / WORDS_NAME} lists {file}, which is not in {folder}")
    for path in list_images(folder).images:
        listed.setdefault(path.name, (Example(path.name, _title(path.name), ""), None))
    return list(listed.values())


def _title(file: str) -> str:
    return Path(file).stem.replace("_", " ").replace("-", " ").capitalize()
