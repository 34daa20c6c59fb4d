"""Probable errors in datasets whose files are all readable, such as unintended label encodings."""

from collections import Counter
from collections.abc import Mapping, Sequence

from segmodels.data import camvid
from segmodels.data.labels import IGNORE_INDEX, Color, LabelEncoding
from segmodels.data.validation import SampleReport, SplitReport
from segmodels.utils.formatting import percent


def likely_errors(reports: Mapping[str, SplitReport]) -> list[str]:
    """Find probable errors.

    Args:
        reports: {split: report} for the splits of one dataset.

    Returns:
        A message for each: the finding, its probable cause and the remedy.
    """
    samples = [sample for report in reports.values() for sample in report.samples]
    data = next(iter(reports.values())).data
    messages = _check_ids(reports, samples)
    if not (data.encoding.by_palette or data.encoding.instances):
        messages += _check_palettes(samples)
    messages += _check_mixed_masks(samples, data.encoding)
    return [*messages, *_check_orientations(samples)]


# ---- ids and classes ----


def _check_ids(reports: Mapping[str, SplitReport], samples: Sequence[SampleReport]) -> list[str]:
    data = next(iter(reports.values())).data
    names, encoding = data.class_names, data.encoding
    messages = []
    counts = _count_values(samples)
    if counts and not (encoding.binary or encoding.instances):
        mismatch = _explain_mismatch(set(counts), names, encoding.void_ids)
        if mismatch:
            messages.append(mismatch)
        intended = encoding.void_ids if _is_camvid(names) else ()
        messages += _undeclared_ids(counts, samples, encoding, intended)
    return [*messages, *_absent_classes(reports)]


def _count_values(samples: Sequence[SampleReport]) -> Counter[int]:
    """{value: number of pixels} in all labels."""
    counts: Counter[int] = Counter()
    for sample in samples:
        if sample.label is not None:
            counts.update(sample.label.counts)
    return counts


def _explain_mismatch(
    values: set[int], names: Sequence[str], void_ids: Sequence[int]
) -> str | None:
    """Explain label values that do not match the declared classes, with the remedy.

    Args:
        values: All values in the labels.
        names: Class names.
        void_ids: Values that are read as void.
    """
    count = len(names)
    classes = f"classes.txt has {count} " + ("class" if count == 1 else "classes")
    for value in (255, 1):
        if value in values <= {0, value} and count != 2:
            meaning = "void" if value in void_ids else "an undeclared id"
            if value < count:
                meaning = f"{names[value]!r}"
            second = names[0] if count == 1 else "foreground"
            return (
                f"the labels contain only 0 and {value}, but {classes}: they are probably binary "
                f"masks, whose {value} is now read as {meaning}. For binary masks, list the two "
                f"classes background and {second} in classes.txt; otherwise save class ids"
            )
    ids = values - {IGNORE_INDEX}
    void_after_classes = [value for value in void_ids if value != IGNORE_INDEX and value in values]
    if 0 not in ids and ids and max(ids) == count:
        return (
            f"no label contains the id 0, and the largest id is {count}, but {classes} (ids 0 to "
            f"{count - 1}): the ids are probably shifted by one, counted from 1. Subtract 1 from "
            "all ids in the labels, or insert background (id 0) as the first line of classes.txt"
        )
    if void_after_classes and not _is_camvid(names):
        void_id = void_after_classes[0]
        return (
            f"the id {void_id} is read as void, since it follows the ids of the {count} classes, "
            "as in SegNet's CamVid. If it is a class, the ids are probably shifted by one, because "
            "classes.txt does not list the background with id 0; insert background as its first "
            f"line. If it is void, save it as {IGNORE_INDEX}"
        )
    return None


def _is_camvid(names: Sequence[str]) -> bool:
    """Whether these are CamVid's classes, for which the id after the last class is void."""
    return sorted(name.lower() for name in names) == sorted(camvid.CLASS_NAMES)


def _undeclared_ids(
    counts: Counter[int],
    samples: Sequence[SampleReport],
    encoding: LabelEncoding,
    intended: Sequence[int],
) -> list[str]:
    """Describe the frequency of ids that are not in classes.txt.

    Args:
        counts: {value: number of pixels} in all labels.
        samples: The samples.
        encoding: The encoding of their labels.
        intended: Void ids that are not reported.
    """
    declared = {*range(encoding.num_classes), IGNORE_INDEX, *intended}
    undeclared = sorted(counts.keys() - declared)[:10]
    total = counts.total()
    messages = []
    for value in undeclared:
        files = sum(_contains(sample, value) for sample in samples)
        meaning = " and is read as void" if value in encoding.void_ids else ""
        messages.append(
            f"the id {value} is not declared in classes.txt{meaning}: "
            f"{percent(counts[value] / total)} % of the pixels, in {files} of {len(samples)} labels"
        )
    return messages


def _absent_classes(reports: Mapping[str, SplitReport]) -> list[str]:
    """Find classes without pixels in the split "train" or, if there is none, the first split."""
    split = "train" if "train" in reports else next(iter(reports))
    report = reports[split]
    names, pixels = report.data.class_names, report.counts[:, :-1].sum(0)
    present = [name for name, count in zip(names, pixels, strict=True) if count]
    absent = [name for name in names if name not in present]
    if not present:
        return []
    message = f"no label of {split!r} contains {', '.join(absent)}"
    if len(present) == 1:
        only = (
            f"all pixels of {split!r} are {present[0]!r} or void: there is nothing to distinguish"
        )
        return [only + (f"; {message}" if absent else "")]
    consequence = ", which a network therefore cannot learn" if split == "train" else ""
    return [message + consequence] if absent else []


# ---- inconsistent encodings ----


def _check_mixed_masks(samples: Sequence[SampleReport], encoding: LabelEncoding) -> list[str]:
    """Find masks of 0 and 1 beside masks of 0 and 255."""
    labels = [sample for sample in samples if sample.label is not None and sample.label.counts]
    ones = [one for one in labels if _contains(one, 1) and not _contains(one, 255)]
    full = [one for one in labels if _contains(one, 255) and not _contains(one, 1)]
    both = [one for one in labels if _contains(one, 1) and _contains(one, 255)]
    are_masks = not both and set(_count_values(samples)) <= {0, 1, 255}
    if not (ones and full and are_masks):
        return []
    one_bit = [one for one in ones if one.label is not None and one.label.kind == "1-bit"]
    meaning = (
        "both are read as masks, with 1 and 255 as the second class"
        if encoding.binary
        else "255 is read as void"
    )
    bits = " (1-bit images)" if len(one_bit) == len(ones) else ""
    return [
        f"the values of masks differ: 0 and 1{bits} in {_name_labels(ones)}, 0 and 255 in "
        f"{_name_labels(full)}; {meaning}. Save all masks with the same values"
    ]


def _contains(sample: SampleReport, value: int) -> bool:
    return sample.label is not None and value in sample.label.counts


def _check_palettes(samples: Sequence[SampleReport]) -> list[str]:
    """Find colours that have different ids in the palettes of two labels."""
    first: dict[Color, tuple[int, SampleReport]] = {}
    for sample in samples:
        palette = sample.label.palette if sample.label is not None else {}
        times = Counter(palette.values())
        for value, color in palette.items():
            if times[color] > 1:
                continue
            first_value, first_sample = first.setdefault(color, (value, sample))
            if first_value != value:
                return [
                    f"the palettes of the labels differ: the colour {color} has the id "
                    f"{first_value} in {_label_name(first_sample)} and {value} in "
                    f"{_label_name(sample)}. Palette images are read by index; save all labels "
                    "with the same palette, or write the lines of classes.txt as `name r g b` to "
                    "read them by colour"
                ]
    return []


# ---- EXIF ----


def _check_orientations(samples: Sequence[SampleReport]) -> list[str]:
    """Find images with an EXIF orientation that their labels lack.

    They are not reported if the sizes prove that labels belong to the upright images.
    """
    differing = [sample for sample in samples if _orientations_differ(sample)]
    if not differing or any(_matches_upright_only(sample) for sample in differing):
        return []
    first = differing[0]
    assert first.image is not None
    assert first.label is not None
    return [
        f"{_name_images(differing)}: the EXIF orientation of the image "
        f"({first.image.orientation}) differs from that of the label ({first.label.orientation}). "
        "If the label was drawn on the image as stored, it does not match the upright image. "
        "Compare an image with its label, then save both upright, without the tag"
    ]


def _orientations_differ(sample: SampleReport) -> bool:
    return (
        sample.image is not None
        and sample.label is not None
        and sample.counts is not None
        and sample.image.orientation != sample.label.orientation
    )


def _matches_upright_only(sample: SampleReport) -> bool:
    """Whether the size of the label matches only the upright image, not the stored one."""
    assert sample.image is not None
    assert sample.label is not None
    is_quarter_turn = (sample.image.orientation >= 5) != (sample.label.orientation >= 5)
    return is_quarter_turn and sample.label.shape[0] != sample.label.shape[1]


# ---- names ----


def _name_labels(samples: Sequence[SampleReport]) -> str:
    return _summarize([_label_name(sample) for sample in samples])


def _name_images(samples: Sequence[SampleReport]) -> str:
    paths = [sample.sample.image for sample in samples]
    return _summarize([f"{path.parent.name}/{path.name}" for path in paths])


def _summarize(names: Sequence[str]) -> str:
    """The name of a single file, or the number of files and the name of the first."""
    return names[0] if len(names) == 1 else f"{len(names)} files ({names[0]} and others)"


def _label_name(sample: SampleReport) -> str:
    return f"{sample.sample.label.parent.name}/{sample.sample.label.name}"
