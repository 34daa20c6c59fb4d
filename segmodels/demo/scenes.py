"""The scenes of the page: which networks belong to each, its words, and its example images."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Example:
    """An example image.

    Attributes:
        file: its name in the folder of examples.
        title: what it is called in the address and by screen readers.
        caption: what to look for in the masks.
    """

    file: str
    title: str
    caption: str

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
        "A view much like the training images. Look at the lamp posts and the far pavement.",
    ),
    Example(
        "crossing.jpg",
        "Crossing",
        "The thin pole of the stop sign: which network follows it down to the road?",
    ),
    Example(
        "street.jpg",
        "Street in Delhi",
        "A rickshaw is no class of CamVid: each network has to name it something else.",
    ),
    Example(
        "cyclists.jpg",
        "Cyclists",
        "Riders and crowd: where does one person end and the next begin?",
    ),
    Example(
        "highway.jpg",
        "Highway",
        "Bare mountains, which no training image shows, become buildings or trees.",
    ),
    Example(
        "bridge.jpg",
        "Bridge",
        "A pale, empty bridge: what is road, what is pavement, and who is walking?",
    ),
)
PEOPLE_AND_ANIMALS_EXAMPLES = (
    Example("dogs.jpg", "Two dogs", "Two dogs, and the legs of people without their heads."),
    Example("cat.jpg", "Cat", "A face that fills the image: nothing of the body helps."),
    Example("astronaut.jpg", "Astronaut", "A person in a suit that hides the usual outline."),
)
BIOMEDICAL_EXAMPLES = (
    Example("nuclei.jpg", "Stained nuclei", "Touching nuclei: which network keeps them apart?"),
    Example("nuclei-dark.png", "Fluorescence", "Bright nuclei on black, of very unlike sizes."),
)

# In the order of the page.
SCENES = {
    "road": Scene(
        "Road",
        "Streets as seen from a car: the 11 classes of CamVid, from road and pavement to pole, "
        "sign and bicyclist. Anything else has to become one of these.",
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
        "Animals, buildings, vehicles, faces and things outdoors and in: the 21 classes of MSRC. "
        "One or two large objects work best.",
        PEOPLE_AND_ANIMALS_EXAMPLES,
    ),
    "own": Scene("Own networks", "The networks that this server was started with."),
}


def scene_of(name: str) -> Scene:
    """The scene, or for one that is not in the table one without words of its own."""
    return SCENES.get(name, SCENES["own"])


def examples_of(name: str, folder: Path | None) -> list[Example]:
    """The scene's examples whose files are in `folder`; for own networks, those of all scenes."""
    if folder is None:
        return []
    examples = scene_of(name).examples or tuple(
        dict.fromkeys(example for scene in SCENES.values() for example in scene.examples)
    )
    return [example for example in examples if (folder / example.file).is_file()]
