"""The scenes of the page: which networks belong to each, its words, and its example images.

An operator's own examples come from a folder (SEGMODELS_EXAMPLES): its images, label images of the
same stem in `labels/`, and words in `examples.json`, each of them optional:

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

from segmodels.data.image_io import list_images

EXAMPLES_VARIABLE = "SEGMODELS_EXAMPLES"
WORDS_NAME = "examples.json"


class ExamplesError(ValueError):
    """What is wrong with a folder of examples."""


@dataclass(frozen=True)
class Note:
    """A place in an example that is worth a look.

    Attributes:
        text: what to look for there.
        x: from the left, as a fraction of the width.
        y: from the top, as a fraction of the height.
        zoom: how many times the place is enlarged.
        tab: that shows it best; "" for the masks.
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
        file: its name in the folder of examples.
        title: what it is called in the address and by screen readers.
        caption: what to look for in the masks.
        notes: where to look for it.
    """

    file: str
    title: str
    caption: str
    notes: tuple[Note, ...] = ()

    @property
    def key(self) -> str:
        """The example in the page's address: its file name without the suffix."""
        return Path(self.file).stem


@dataclass(frozen=True)
class Scene:
    """A kind of image that some of the served networks were trained for.

    Attributes:
        label: its name on the page.
        description: what its networks were trained on.
        examples: images to try, the first of which greets a visitor.
    """

    label: str
    description: str
    examples: tuple[Example, ...] = ()


ROAD_EXAMPLES = (
    Example(
        "avenue.jpg",
        "Avenue",
        "A view much like the training images.",
        (
            Note("Lamp posts: whole or in pieces?", 0.275, 0.47),
            Note("Sign or pole?", 0.163, 0.37),
            Note("Far pavement", 0.93, 0.58),
            Note("32s loses posts, 8s brings them back", 0.275, 0.47, 3, "skips"),
        ),
    ),
    Example(
        "crossing.jpg",
        "Crossing",
        "Thin poles, and a car in the shade.",
        (
            Note("The pole of the stop sign", 0.395, 0.72),
            Note("Poles far away", 0.17, 0.45),
            Note("32s loses the pole, 8s brings it back", 0.395, 0.72, 3, "skips"),
        ),
    ),
    Example(
        "street.jpg",
        "Street in Delhi",
        "A rickshaw is no class of CamVid: each network has to name it something else.",
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
            Note("Rider and bicycle, one class", 0.57, 0.5, 2.5),
            Note("Pedestrians in a crowd", 0.15, 0.5, 3),
        ),
    ),
    Example(
        "highway.jpg",
        "Highway",
        "Bare mountains, which no training image shows, become buildings or trees.",
        (
            Note("A mountain has no class", 0.75, 0.3, 2.5),
            Note("People at the edge", 0.84, 0.66, 5),
        ),
    ),
    Example(
        "bridge.jpg",
        "Bridge",
        "A pale, empty bridge: what is road, what is pavement?",
        (
            Note("The people far away", 0.45, 0.51),
            Note("A lamp post before the sky", 0.11, 0.22),
        ),
    ),
)
PEOPLE_AND_ANIMALS_EXAMPLES = (
    Example("dogs.jpg", "Two dogs", "Two dogs, and the legs of people without their heads."),
    Example("cat.jpg", "Cat", "A face that fills the image: nothing of the body helps."),
    Example("astronaut.jpg", "Astronaut", "A person in a suit that hides the usual outline."),
    Example(
        "cyclists.jpg",
        "Cyclists",
        "Many persons, one before the other.",
        (Note("A rider, and no class for the bicycle", 0.57, 0.5, 2.5),),
    ),
    Example("street.jpg", "Street in Delhi", "Persons on foot, on a rickshaw and on motorcycles."),
    Example(
        "bridge.jpg",
        "Bridge",
        "Persons of a few pixels: which network still sees them?",
        (Note("The people far away", 0.45, 0.51),),
    ),
)
BIOMEDICAL_EXAMPLES = (
    Example("nuclei.jpg", "Stained nuclei", "Touching nuclei: which network keeps them apart?"),
    Example("nuclei-dark.png", "Fluorescence", "Bright and dim nuclei, of very unlike sizes."),
    Example("nuclei-many.png", "Round nuclei", "Clear outlines: here all three should agree."),
    Example("nuclei-smear.jpg", "Smear", "Torn and blurred nuclei, some out of focus."),
    Example("nuclei-tissue.jpg", "Tissue", "Few nuclei beside a red band that is none."),
    Example("cells.jpg", "Whole cells", "Each cell with its nucleus, in heaps and alone."),
)

# In the order of the page.
SCENES = {
    "road": Scene(
        "Road",
        "Streets as seen from a car: the 11 classes of CamVid. Anything else has to become one of "
        "these.",
        ROAD_EXAMPLES,
    ),
    "animals": Scene(
        "People and animals",
        "Cat, dog, horse, cow, sheep and person, and a background for all the rest.",
        PEOPLE_AND_ANIMALS_EXAMPLES,
    ),
    "biomedical": Scene(
        "Biomedical",
        "Microscope and retina images: nuclei, blood cells, cell membranes and vessels.",
        BIOMEDICAL_EXAMPLES,
    ),
    "everyday": Scene(
        "Everyday",
        "Animals, buildings, vehicles, faces and things: the 21 classes of MSRC. One or two large "
        "objects work best.",
        PEOPLE_AND_ANIMALS_EXAMPLES,
    ),
    "own": Scene("Own networks", "The networks that this server was started with."),
}


def scene_of(name: str) -> Scene:
    """The scene, or for one that is not in the table one without words of its own."""
    return SCENES.get(name, SCENES["own"])


def in_order(names: list[str]) -> list[str]:
    """Scenes in the order of the page, the others behind as they come."""
    order = list(SCENES)
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


class ExampleFolder:
    """The example images of a folder, and the words of the page about them and the scenes.

    Args:
        folder: the folder; None for no examples.
        is_own: its images are an operator's, offered in every scene that `examples.json` does not
            forbid, in place of those that come with the package.

    Raises:
        ExamplesError: if `examples.json` is not as described above.
    """

    def __init__(self, folder: Path | None, *, is_own: bool = False) -> None:
        self.folder = folder
        self._words = _words(folder) if folder and is_own else {}
        self._own = _own_examples(folder, self._words) if folder and is_own else None

    @property
    def introduction(self) -> str | None:
        """The operator's words at the head of the page."""
        return self._words.get("introduction")

    def scene(self, name: str, class_names: list[str]) -> Scene:
        """The scene in the operator's words, if there are any. class_names: of its networks."""
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
        """The examples of a scene whose files are there; for own networks, those of all scenes."""
        if self.folder is None:
            return []
        if self._own is not None:
            return [example for example, only in self._own if only in (None, scene)]
        examples = scene_of(scene).examples or _one_of_each_file()
        return [example for example in examples if (self.folder / example.file).is_file()]

    def path(self, example: Example) -> Path:
        """Where the example's image is."""
        assert self.folder is not None
        return self.folder / example.file

    @property
    def all(self) -> list[Example]:
        """Every example of every scene."""
        if self._own is not None:
            return [example for example, _ in self._own]
        return [example for example in _one_of_each_file() if self._is_there(example)]

    def _is_there(self, example: Example) -> bool:
        return self.folder is not None and self.path(example).is_file()


def example_folder(default: Path) -> ExampleFolder:
    """The operator's folder of examples, or else the one that comes with the package.

    Raises:
        ExamplesError: if SEGMODELS_EXAMPLES names no folder, or one with wrong words.
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
        raise ExamplesError(f"{path} is not JSON: {error}") from error
    if not isinstance(words, dict):
        raise ExamplesError(f"{path} holds {type(words).__name__}; expected an object")
    return words


def _own_examples(folder: Path, words: Mapping[str, Any]) -> list[tuple[Example, str | None]]:
    """Those that `examples.json` lists, in its order, and then all other images of the folder."""
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
                f'{folder / WORDS_NAME}: {entry!r} is no example; expected an object with "file" '
                'and, if wanted, "title", "caption", "scene" and "notes"'
            ) from error
        if not (folder / file).is_file():
            raise ExamplesError(f"{folder / WORDS_NAME} lists {file}, which is not in {folder}")
    for path in list_images(folder).images:
        listed.setdefault(path.name, (Example(path.name, _title(path.name), ""), None))
    return list(listed.values())


def _title(file: str) -> str:
    return Path(file).stem.replace("_", " ").replace("-", " ").capitalize()
