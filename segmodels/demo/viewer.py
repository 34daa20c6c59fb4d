"""The JSON value of the page's viewer (assets/viewer.js): an image, compressed maps and colours.

Rendering happens in the browser, so opacity, classes and views change instantly and the server does
not encode overlays.
"""

import base64
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segmodels.data.resizing import resize, resize_image
from segmodels.demo import strings
from segmodels.demo.ground_truth import Judgement
from segmodels.inference.comparison import (
    AGREE,
    RIGHT,
    VOID,
    WRONG,
    ModelFailure,
    ModelResult,
    ServedModel,
    comparable,
    disagreement,
    quantised,
)
from segmodels.inference.results import LabeledImage
from segmodels.utils.palette import is_background, safe_palette

Answers = Sequence[ModelResult | ModelFailure]

DISPLAY_SIZE = 1280  # longer side of images and maps sent to the browser, in pixels
HEAT_SIZE = 640  # the same for probabilities, which are smooth
JPEG_QUALITY = 85
OPACITY = 0.6
HIGHEST_DEVIATION = 0.08  # standard deviation of class probabilities at the end of the scale

# Color-blind safe (Okabe and Ito, 2008). OTHER_COLOR: no single network disagrees.
NETWORK_COLORS = [[230, 159, 0], [86, 180, 233], [0, 158, 115]]
OTHER_COLOR = [204, 121, 167]
ERROR_COLORS = {RIGHT: [0, 114, 178], WRONG: [213, 94, 0], VOID: [128, 128, 128]}
SCALE = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]  # viridis
AGREE_COLOR = [128, 128, 128]  # rarely visible: the map is transparent where all agree


class Panel(TypedDict):
    """One image with a map over it.

    Attributes:
        title: Title of the panel.
        maps: Base64 of zlib-compressed ids in row-major order; one map, or one for each of the
            view's choices.
        size: [width, height] of the maps.
        colors: [r, g, b, alpha] of each id; ids beyond them are transparent.
        safe_colors: The same for the colour-blind-safe palette.
        names: Name of each id, or of each map if the view has choices.
        caption: Text below the panel.
        alt: Alternative text.
        state: "ready", "running", "waiting" or "failed".
        note: Text shown in place of the map.
        architecture: Architecture whose drawing can be shown below; "" for none.
    """

    title: str
    maps: list[str]
    size: list[int] | None
    colors: list[list[int]]
    safe_colors: list[list[int]]
    names: list[str]
    caption: str
    alt: str
    state: str
    note: str
    architecture: str


class LegendEntry(TypedDict):
    """A colour and its meaning.

    Attributes:
        name: Name of the entry.
        group: Group of entries that stand for the same class.
        color: [r, g, b].
        safe_color: The same for the colour-blind-safe palette.
        ids: Ids of the entry in each panel.
        shares: Share of the image in each panel; None if there is no answer.
    """

    name: str
    group: str
    color: list[int]
    safe_color: list[int]
    ids: list[list[int]]
    shares: list[float | None]


class Scale(TypedDict):
    """A colour scale: ids 0 to 255 stand for 0 to `highest`, shown in `unit` with `digits`
    decimals."""

    highest: float
    unit: str
    digits: int
    low: str
    high: str
    colors: list[list[int]]


class OtherNetwork(TypedDict):
    """A served network that can replace one of those shown."""

    name: str
    title: str


class View(TypedDict):
    """The viewer's value.

    Attributes:
        image: Data URL of the image.
        size: [width, height] of the image.
        panels: The panels.
        legend: The legend.
        status: Status text.
        opacity: Initial opacity of the overlays.
        scale: Colour scale, if the maps hold numbers.
        choices: Names of the maps of each panel, if the visitor can choose between several.
        views: The views on offer.
        downloads: Whether panels can be downloaded.
        extras: Panels that can be shown in place of others, for example the ground truth.
        others: Served networks that are not shown.
        share: What the share button provides; "" for no button.
        labels: Visible texts.
    """

    image: str
    size: list[int]
    panels: list[Panel]
    legend: list[LegendEntry]
    status: str
    opacity: float
    scale: Scale | None
    choices: list[str]
    views: list[str]
    downloads: bool
    extras: list[Panel]
    others: list[OtherNetwork]
    share: Literal["", "link", "image"]
    labels: Mapping[str, Any]


def image_url(image: Image.Image) -> str:
    """Encode an RGB image as a JPEG data URL of at most `DISPLAY_SIZE` pixels, without a file."""
    if max(image.size) > DISPLAY_SIZE:
        image = resize_image(image, DISPLAY_SIZE)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def display(ids: NDArray[np.uint8], longer_side: int = DISPLAY_SIZE) -> NDArray[np.uint8]:
    """Downscale a map (H, W) to at most `longer_side` pixels by nearest neighbor."""
    if max(ids.shape) <= longer_side:
        return ids
    return resize(ids, longer_side, nearest=True)


def packed(ids: NDArray[np.uint8]) -> str:
    """Encode a map (h, w) as base64 of its zlib-compressed bytes."""
    return base64.b64encode(zlib.compress(ids.tobytes(), 1)).decode()


def view(
    url: str,
    size: Sequence[int],
    panels: Sequence[Panel],
    *,
    legend: Sequence[LegendEntry] = (),
    status: str = "",
    opacity: float = OPACITY,
    scale: Scale | None = None,
    choices: Sequence[str] = (),
    views: Sequence[str] = ("overlay", "map", "image", "split"),
    downloads: bool = False,
    extras: Sequence[Panel] = (),
    others: Sequence[OtherNetwork] = (),
    share: Literal["", "link", "image"] = "",
) -> View:
    """Return the viewer's value for the image at `url`, whose (height, width) is `size`."""
    return {
        "image": url,
        "size": [int(size[1]), int(size[0])],
        "panels": list(panels),
        "legend": list(legend),
        "status": status,
        "opacity": opacity,
        "scale": scale,
        "choices": list(choices),
        "views": list(views),
        "downloads": downloads,
        "extras": list(extras),
        "others": list(others),
        "share": share,
        "labels": strings.VIEWER,
    }


def panel(
    title: str,
    maps: Sequence[NDArray[np.uint8]] = (),
    colors: Sequence[Sequence[int]] = (),
    *,
    names: Sequence[str] = (),
    safe_colors: Sequence[Sequence[int]] | None = None,
    transparent: Sequence[int] = (),
    caption: str = "",
    alt: str = "",
    state: str = "ready",
    note: str = "",
    architecture: str = "",
) -> Panel:
    """Create a panel. See `Panel` for the arguments that are not listed here.

    Args:
        title: Title of the panel.
        maps: Maps of equal shape (h, w).
        colors: [r, g, b] of each id.
        safe_colors: The same for the colour-blind-safe palette; defaults to `colors`.
        transparent: Ids that show the image.
    """
    return {
        "title": title,
        "maps": [packed(ids) for ids in maps],
        "size": list(maps[0].shape[::-1]) if maps else None,
        "colors": _with_alpha(colors, transparent),
        "safe_colors": _with_alpha(colors if safe_colors is None else safe_colors, transparent),
        "names": list(names),
        "caption": caption,
        "alt": alt or f"{title}: {note}",
        "state": state,
        "note": note,
        "architecture": architecture,
    }


def _with_alpha(colors: Sequence[Sequence[int]], transparent: Sequence[int]) -> list[list[int]]:
    return [
        [*map(int, color), 0 if number in transparent else 255]
        for number, color in enumerate(colors)
    ]


@dataclass(frozen=True)
class Truth:
    """A ground truth.

    Attributes:
        target: (H, W) ids into `class_names`, 255 for void.
        class_names: The class names.
        palette: [r, g, b] of each class.
    """

    target: NDArray[np.uint8]
    class_names: list[str]
    palette: list[list[int]]

    def panel(self) -> Panel:
        """Return the panel that shows the ground truth."""
        return panel(
            strings.TRUTH,
            [display(self.target)],
            self.palette,
            names=self.class_names,
            safe_colors=safe_palette(self.class_names),
            transparent=[n for n, name in enumerate(self.class_names) if is_background(name)],
            alt=strings.TRUTH,
        )


def comparison(
    url: str,
    size: Sequence[int],
    networks: Sequence[ServedModel],
    answers: Sequence[ModelResult | ModelFailure],
    *,
    truth: Truth | None = None,
    others: Sequence[OtherNetwork] = (),
    share: Literal["", "link", "image"] = "",
) -> View:
    """Return the view of a comparison.

    It shows the masks of the networks that have answered; the next network is shown as running and
    the others as waiting. `others` and `share` are as in `View`.
    """
    panels = [answer_panel(answer) for answer in answers]
    for network in networks[len(answers) :]:
        caption = strings.caption(network, None)
        panels.append(pending_panel(network.title, len(panels) == len(answers), caption))
    views = ["overlay", "map", "image", "split"]
    if len(networks) > 1:
        views.insert(1, "disagreement")
    for network, shown in zip(networks, panels, strict=True):
        shown["architecture"] = network.model.architecture
    is_complete = len(answers) == len(networks)
    return view(
        url,
        size,
        unique_titles(panels),
        legend=class_legend(networks, answers, truth),
        status=strings.progress(networks, answers),
        views=views,
        downloads=is_complete,
        extras=[truth.panel()] if truth else [],
        others=others,
        share=share if is_complete else "",
    )


def class_panel(segmentation: LabeledImage, title: str, caption: str) -> Panel:
    """Return the panel of a mask."""
    names = segmentation.class_names
    return panel(
        title,
        [display(segmentation.class_map)],
        segmentation.palette,
        names=names,
        safe_colors=safe_palette(names),
        transparent=[number for number, name in enumerate(names) if is_background(name)],
        caption=caption,
        alt=strings.mask_alt(title, segmentation.areas()),
    )


def answer_panel(answer: ModelResult | ModelFailure) -> Panel:
    """Return the panel of a network's mask, or of its failure."""
    title = answer.network.title
    if isinstance(answer, ModelResult):
        caption = strings.caption(answer.network, answer.seconds)
        return class_panel(answer.segmentation, title, caption)
    caption = strings.caption(answer.network, None)
    return panel(title, caption=caption, state="failed", note=strings.NETWORK_FAILED)


def pending_panel(title: str, running: bool, caption: str = "") -> Panel:
    """Return the panel of a map that is being computed or waiting."""
    state, note = ("running", strings.RUNNING) if running else ("waiting", strings.WAITING)
    return panel(title, caption=caption, state=state, note=note)


def stream_view(
    url: str,
    size: Sequence[int],
    titles: Sequence[str],
    panels: Iterator[Panel],
    **options: Any,
) -> Iterator[View]:
    """Yield a view each time another of its panels is ready.

    Args:
        url: Data URL of the image.
        size: (height, width) of the image.
        titles: Titles of all panels.
        panels: The panels, computed on iteration.
        **options: Further arguments of `view`.
    """
    ready: list[Panel] = []
    while len(ready) < len(titles):
        pending = [
            pending_panel(title, number == 0) for number, title in enumerate(titles[len(ready) :])
        ]
        yield view(url, size, unique_titles([*ready, *pending]), **options)
        ready.append(next(panels))
    yield view(url, size, unique_titles(ready), **options)


def unique_titles(panels: Sequence[Panel]) -> list[Panel]:
    """Append numbers to repeated titles."""
    plain = [entry["title"] for entry in panels]
    titles = [
        title if title not in plain[:number] else f"{title} ({plain[:number].count(title) + 1})"
        for number, title in enumerate(plain)
    ]
    return [{**entry, "title": title} for entry, title in zip(panels, titles, strict=True)]


def class_legend(
    networks: Sequence[ServedModel], answers: Answers = (), truth: Truth | None = None
) -> list[LegendEntry]:
    """Return one legend entry per class and colour.

    Each entry has the class's ids and share of the image for each network, followed by its ids in
    the ground truth. A class with different colours in two networks has two entries.
    """
    keys = [(network.model.class_names, network.model.palette) for network in networks]
    keys += [(truth.class_names, truth.palette)] if truth else []
    entries: dict[tuple[str, tuple[int, ...]], list[list[int]]] = {}
    for number, (class_names, palette) in enumerate(keys):
        for class_id, (name, color) in enumerate(zip(class_names, palette, strict=True)):
            ids = entries.setdefault((name, tuple(color)), [[] for _ in keys])
            ids[number].append(class_id)
    names = [name for name, _ in entries]
    safe = dict(zip(dict.fromkeys(names), safe_palette(list(dict.fromkeys(names))), strict=True))
    areas = [
        answer.segmentation.areas() if isinstance(answer, ModelResult) else None
        for answer in answers
    ]
    areas += [None] * (len(networks) - len(areas))
    return [
        {
            "name": name if names.count(name) == 1 else f"{name} ({_owner(networks, ids)})",
            "group": name,
            "color": list(color),
            "safe_color": safe[name],
            "ids": ids,
            "shares": [
                None if area is None or not own else area.get(name, 0.0)
                for area, own in zip(areas, ids, strict=False)  # without the ground truth
            ],
        }
        for (name, color), ids in entries.items()
    ]


def _owner(networks: Sequence[ServedModel], ids: Sequence[Sequence[int]]) -> str:
    owners = [network.name for network, own in zip(networks, ids, strict=False) if own]
    return ", ".join(owners) or strings.TRUTH


def _entry(name: str, color: Sequence[int], ids: Sequence[Sequence[int]]) -> LegendEntry:
    """Return a legend entry that does not stand for a class."""
    return {
        "name": name,
        "group": name,
        "color": list(color),
        "safe_color": list(color),
        "ids": [list(own) for own in ids],
        "shares": [None] * len(ids),
    }


def agreement_view(url: str, size: Sequence[int], results: Sequence[ModelResult]) -> View:
    """Return the view of where all networks agree (transparent) and where one disagrees, with the
    share of each case."""
    ids = disagreement(comparable(results))
    shares = np.bincount(ids.ravel(), minlength=len(results) + 2) / ids.size
    titles = [result.network.title for result in results]
    colors = [AGREE_COLOR, *NETWORK_COLORS[: len(results)]]
    colors += [[160, 160, 160]] * (len(results) + 1 - len(colors)) + [OTHER_COLOR]
    names = strings.disagreement_names(titles)
    shown = [i for i in range(len(names)) if i in (AGREE, len(names) - 1) or len(results) > 2]
    legend = [_entry(f"{names[i]}: {strings.percent(shares[i])}", colors[i], [[i]]) for i in shown]
    alt = ". ".join(entry["name"] for entry in legend)
    maps = panel(
        strings.AGREEMENT, [display(ids)], colors, names=names, transparent=[AGREE], alt=alt
    )
    return view(url, size, [maps], legend=legend, opacity=0.85)


def scale(highest: float, unit: str, digits: int) -> Scale:
    """Return the scale of a view whose ids stand for numbers."""
    low, high = (f"{value:.{digits}f}{unit}" for value in (0.0, highest))
    return {
        "highest": highest,
        "unit": unit,
        "digits": digits,
        "low": low,
        "high": high,
        "colors": SCALE,
    }


def scale_colors() -> list[list[int]]:
    """Return the (256, 3) colours of the scale."""
    points = np.linspace(0, 255, len(SCALE))
    channels = [np.interp(np.arange(256), points, [color[c] for color in SCALE]) for c in range(3)]
    return np.rint(np.stack(channels, 1)).astype(int).tolist()


def heat_panel(
    network: ServedModel, probabilities: NDArray[np.float32], choices: Sequence[str]
) -> Panel:
    """Return the panel of a network's probabilities.

    Args:
        network: The network.
        probabilities: (num_classes, h, w) float32.
        choices: The label of the first map, which shows the confidence (the probability of the
            predicted class), then the names of the classes of the other maps. Classes that the
            network does not have get probability 0.
    """
    names = network.model.class_names
    confidence = probabilities.max(0)
    maps = [confidence] + [
        probabilities[names.index(name)] if name in names else np.zeros_like(confidence)
        for name in choices[1:]
    ]
    caption = strings.mean_confidence(float(confidence.mean()))
    return panel(
        network.title,
        [display(quantised(values), HEAT_SIZE) for values in maps],
        scale_colors(),
        names=[
            strings.mean_probability(name, float(values.mean()))
            for name, values in zip(choices, maps, strict=True)
        ],
        caption=caption,
        alt=f"{network.title}: {caption}",
    )


def uncertainty_panel(
    network: ServedModel, uncertainty: NDArray[np.float32], samples: int
) -> Panel:
    """Return the panel of (H, W) variances, shown as standard deviations."""
    deviation = np.sqrt(uncertainty)
    caption = strings.mean_deviation(float(deviation.mean()), samples)
    return panel(
        network.title,
        [display(quantised(deviation, HIGHEST_DEVIATION), HEAT_SIZE)],
        scale_colors(),
        caption=caption,
        alt=f"{network.title}: {caption}",
    )


def error_view(url: str, truth: Truth, judgements: Sequence[Judgement]) -> View:
    """Return the view of the ground truth and each network's errors."""
    colors: list[list[int]] = [ERROR_COLORS[kind] for kind in (RIGHT, WRONG, VOID)]
    panels = [truth.panel()] + [
        panel(
            judgement.result.network.title,
            [display(judgement.errors)],
            colors,
            names=strings.ERRORS,
            caption=strings.judgement(judgement.mean_iou, judgement.pixel_accuracy),
            alt=f"{judgement.result.network.title}: "
            + strings.judgement(judgement.mean_iou, judgement.pixel_accuracy),
        )
        for judgement in judgements
    ]
    legend = [
        _entry(strings.ERRORS[kind], colors[kind], [[], *([kind] for _ in judgements)])
        for kind in (RIGHT, WRONG, VOID)
    ]
    return view(url, truth.target.shape, unique_titles(panels), legend=legend)
