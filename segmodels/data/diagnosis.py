"""What is probably wrong with a dataset though every file can be used: label encodings that cannot
have been meant, and their likely cause."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from segmodels.data import camvid
from segmodels.data.labels import IGNORE_INDEX, Color, LabelEncoding
from segmodels.data.validation import Look, Survey
from segmodels.utils.formatting import percent


def likely_errors(surveys: Mapping[str, Survey]) -> list[str]:
    """Find what is probably wrong.

    Args:
        surveys: Of the splits of one dataset.

    Returns:
        A sentence each: what was found, its likely cause and the remedy.
    """
    looks = [look for one in surveys.values() for look in one.looks]
    data = next(iter(surveys.values())).data
    found = _unlikely_classes(surveys, looks)
    if not (data.encoding.by_palette or data.encoding.instances):
        found += _palettes(looks)
    return [*found, *_mixed_masks(looks, data.encoding), *_unshared_turns(looks)]


# ---- ids and classes ----


def _unlikely_classes(surveys: Mapping[str, Survey], looks: Sequence[Look]) -> list[str]:
    data = next(iter(surveys.values())).data
    names, encoding = data.class_names, data.encoding
    found = []
    values = _values(looks)
    if values and not (encoding.binary or encoding.instances):
        cause = _cause(set(values), names, encoding.void_ids)
        if cause:
            found.append(cause)
        void_ids = encoding.void_ids if _is_camvid(names) else ()
        found += _unknown(values, looks, encoding, void_ids)
    return [*found, *_lacking_classes(surveys)]


def _values(looks: Sequence[Look]) -> Counter[int]:
    """{value: pixels} over all labels."""
    values: Counter[int] = Counter()
    for look in looks:
        if look.label is not None:
            values.update(look.label.counts)
    return values


def _cause(used: set[int], names: Sequence[str], void_ids: Sequence[int]) -> str | None:
    """Why these values cannot have been meant as ids of these classes, with the remedy."""
    count = len(names)
    classes = f"classes.txt has {count} " + ("line" if count == 1 else "lines")
    for value in (255, 1):
        if value in used <= {0, value} and count != 2:
            read = "void, no class" if value in void_ids else "an id that classes.txt lacks"
            if value < count:
                read = f"{names[value]!r}"
            second = names[0] if count == 1 else "foreground"
            return (
                f"the labels hold 0 and {value} alone, and {classes}: they are probably masks of "
                f"background and one class. As it is, {value} is read as {read}. For masks write "
                f"two lines into classes.txt, background and {second}; else save class ids"
            )
    ids = used - {IGNORE_INDEX}
    after = [value for value in void_ids if value != IGNORE_INDEX and value in used]
    if 0 not in ids and ids and max(ids) == count:
        return (
            f"no label has the id 0, and the largest is {count}, though {classes} (ids 0 to "
            f"{count - 1}): the ids are probably shifted by one, counted from 1. Subtract 1 from "
            f"the labels' ids, or put a line for the id 0 (background) first in classes.txt"
        )
    if after and not _is_camvid(names):
        return (
            f"the id {after[0]} is read as void, since it follows the last of the {count} classes, "
            "as in SegNet's CamVid. If it stands for a class, the ids are probably shifted by one: "
            "0 is the background, which classes.txt does not name. Then put background first in "
            f"classes.txt; else write {IGNORE_INDEX} for void in place of {after[0]}"
        )
    return None


def _is_camvid(names: Sequence[str]) -> bool:
    """Whether the id after the last class is meant to be void."""
    return sorted(name.lower() for name in names) == sorted(camvid.CLASS_NAMES)


def _unknown(
    values: Counter[int], looks: Sequence[Look], encoding: LabelEncoding, meant: Sequence[int]
) -> list[str]:
    """Of ids that classes.txt does not name, their shares; without those that are meant."""
    known = {*range(encoding.num_classes), IGNORE_INDEX, *meant}
    others = sorted(values.keys() - known)[:10]
    total = values.total()
    sentences = []
    for value in others:
        files = sum(look.label is not None and value in look.label.counts for look in looks)
        read = " and is read as void" if value in encoding.void_ids else ""
        sentences.append(
            f"the id {value} is not among the classes{read}: {percent(values[value] / total)} % of "
            f"the labels' pixels, in {files} of {len(looks)} labels"
        )
    return sentences


def _lacking_classes(surveys: Mapping[str, Survey]) -> list[str]:
    """Classes without a pixel in the training labels, or in all where there are none."""
    split = "train" if "train" in surveys else next(iter(surveys))
    one = surveys[split]
    names, pixels = one.data.class_names, one.counts[:, :-1].sum(0)
    present = [name for name, count in zip(names, pixels, strict=True) if count]
    lacking = [name for name in names if name not in present]
    if not present:
        return []
    where = f"no label of {split!r} has a pixel of {', '.join(lacking)}"
    if len(present) == 1:
        only = f"every pixel of {split!r} is {present[0]!r} or void, so that there is nothing to "
        return [only + "tell apart" + (f": {where}" if lacking else "")]
    consequence = ", which a network cannot learn then" if split == "train" else ""
    return [where + consequence] if lacking else []


# ---- encodings that differ between files ----


def _mixed_masks(looks: Sequence[Look], encoding: LabelEncoding) -> list[str]:
    """Masks of 0 and 1 beside masks of 0 and 255."""
    labels = [look for look in looks if look.label is not None and look.label.counts]
    ones = [look for look in labels if _holds(look, 1) and not _holds(look, 255)]
    full = [look for look in labels if _holds(look, 255) and not _holds(look, 1)]
    others = [look for look in labels if _holds(look, 1) and _holds(look, 255)]
    alike = not others and set(_values(looks)) <= {0, 1, 255}
    if not (ones and full and alike):
        return []
    one_bit = [look for look in ones if look.label is not None and look.label.kind == "1-bit"]
    read = (
        "both are read as masks, 1 and 255 being the second class"
        if encoding.binary
        else "255 is read as void there"
    )
    bits = ", of 1 bit a pixel," if len(one_bit) == len(ones) else ""
    return [
        f"{_some(ones)}{bits} hold 0 and 1, {_some(full)} 0 and 255: {read}. Save all labels alike"
    ]


def _holds(look: Look, value: int) -> bool:
    return look.label is not None and value in look.label.counts


def _palettes(looks: Sequence[Look]) -> list[str]:
    """Palettes that give one color to different ids."""
    first: dict[Color, tuple[int, Look]] = {}
    for look in looks:
        palette = look.label.palette if look.label is not None else {}
        times = Counter(palette.values())
        for value, color in palette.items():
            if times[color] > 1:
                continue
            other, owner = first.setdefault(color, (value, look))
            if other != value:
                return [
                    "the order of the palettes differs between labels: the color "
                    f"{color} is the id {other} in {_label(owner)} and {value} in {_label(look)}. "
                    "Palette labels are read by their indices; save all with one palette, or write "
                    "the lines of classes.txt as `name r g b`, so that they are read by color"
                ]
    return []


# ---- EXIF ----


def _unshared_turns(looks: Sequence[Look]) -> list[str]:
    """Images that EXIF turns and whose labels it does not, where the size does not tell whether
    the labels are upright."""
    differing = [look for look in looks if _orientations_differ(look)]
    if not differing or any(_fits_only_upright(look) for look in differing):
        return []
    first = differing[0]
    assert first.image is not None
    return [
        f"EXIF turns {_some(differing, _image)} (orientation {first.image.orientation}) and not "
        "the labels: if these were drawn on the images as they are stored, they lie turned "
        "against them. Look at one with its label; then save images and labels upright, without "
        "the tag"
    ]


def _orientations_differ(look: Look) -> bool:
    return (
        look.image is not None
        and look.label is not None
        and look.counts is not None
        and look.image.orientation != look.label.orientation
    )


def _fits_only_upright(look: Look) -> bool:
    """Whether the sizes show that the label belongs to the upright image."""
    assert look.image is not None
    assert look.label is not None
    is_quarter = (look.image.orientation >= 5) != (look.label.orientation >= 5)
    return is_quarter and look.label.shape[0] != look.label.shape[1]


# ---- names ----


def _some(looks: Sequence[Look], name: Callable[[Look], str] | None = None) -> str:
    """How many files, and the name of the first."""
    named = (name or _label)(looks[0])
    return named if len(looks) == 1 else f"{len(looks)} files ({named} and others)"


def _label(look: Look) -> str:
    return f"{look.sample.label.parent.name}/{look.sample.label.name}"


def _image(look: Look) -> str:
    return f"{look.sample.picture.parent.name}/{look.sample.picture.name}"
