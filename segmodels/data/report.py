"""What a data set holds, in words and columns."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from segmodels.data.dataset import SPLITS, DataError, has_split, read_split
from segmodels.data.validation import Survey, survey
from segmodels.utils.formatting import percent

ALL_SPLITS = (*SPLITS, "trainval")  # the last is PASCAL VOC's


def survey_all(folder: Path) -> tuple[dict[str, Survey], list[str]]:
    """Every split that there is, and the mistakes of all."""
    surveys, mistakes = {}, []
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    for split in ALL_SPLITS:
        if has_split(folder, split):
            try:
                surveys[split] = survey(*read_split(folder, split))
            except DataError as error:
                mistakes += [str(error)] * (str(error) not in mistakes)
    for found in surveys.values():
        mistakes += [mistake for mistake in found.mistakes if mistake not in mistakes]
    if not surveys and not mistakes:
        read_split(folder, SPLITS[0])  # whose error says what was expected
    if surveys and "train" not in surveys:
        mistakes.append("there is no split 'train', which a training needs")
    return surveys, mistakes


def describe(folder: Path, surveys: Mapping[str, Survey]) -> str:
    """Layout, splits with their sizes, and the classes with their shares of the pixels."""
    first = next(iter(surveys.values())).data
    lines = [f"{folder}: {first.layout.name}, labels of {first.encoding.describe()}", ""]
    lines.append(f"{'split':<10}{'pictures':>9}{'void':>9}  sizes")
    for split, one in surveys.items():
        void = one.counts[:, -1].sum() / max(1, one.counts.sum())
        lines.append(f"{split:<10}{len(one.data):>9}{percent(void):>7} %  {_sizes(one)}")
    head = "".join(f"{split:>12} %{'pictures':>10}" for split in surveys)
    width = max(5, *map(len, first.class_names)) + 2
    lines += ["", f"{'id':>3}  {'class':<{width}}{head}"]
    for class_id, name in enumerate(first.class_names):
        cells = "".join(_cells(one, class_id) for one in surveys.values())
        lines.append(f"{class_id:>3}  {name:<{width}}{cells}")
    return "\n".join(lines) + "\n"


def same_pictures(surveys: Mapping[str, Survey]) -> Iterator[str]:
    """A sentence for each two splits that share pictures, byte for byte; "trainval" is meant to."""
    contents = {split: _picture_digests(one) for split, one in surveys.items()}
    splits = [split for split in contents if split != "trainval"]
    for number, first in enumerate(splits):
        for second in splits[number + 1 :]:
            shared = contents[first].keys() & contents[second].keys()
            if shared:
                names = ", ".join(sorted(contents[first][digest] for digest in shared)[:3])
                yield (
                    f"{first!r} and {second!r} share pictures, {len(shared)} in all ({names}): "
                    "figures on the one flatter what was trained on the other"
                )


def _picture_digests(one: Survey) -> dict[str, str]:
    """{hash: file name}"""
    names = {f"{s.picture.parent.name}/{s.picture.name}" for s in one.data.samples}
    return {digest: name for name, digest in one.digests.items() if name in names}


def _sizes(one: Survey) -> str:
    """The most frequent sizes, width x height."""
    shown = [f"{width} x {height}" for (width, height), _ in one.sizes.most_common(3)]
    more = len(one.sizes) - len(shown)
    return ", ".join(shown) + f" and {more} more" * (more > 0)


def _cells(one: Survey, class_id: int) -> str:
    pixels = one.counts[:, class_id]
    share = pixels.sum() / max(1, one.counts[:, :-1].sum())
    return f"{percent(share):>14}{int((pixels > 0).sum()):>10}"
