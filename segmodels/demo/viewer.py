"""What the page's viewer (assets/viewer.js) is given: an image, maps over it as compressed bytes,
and their colors, as JSON. The browser paints, so that opacity, classes and views change at once and
the server encodes no overlay."""

import base64
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segmodels.data.image_io import resize, resize_image
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

DISPLAY_SIZE = 1280  # longer side of what the browser gets, pixels
HEAT_SIZE = 640  # the same for probabilities, which are smooth
JPEG_QUALITY = 85
OPACITY = 0.6
HIGHEST_DEVIATION = 0.08  # of class probabilities; the scale ends there

# Color-blind safe (Okabe and Ito, 2008); the last stands for "no single network".
NETWORK_COLORS = [[230, 159, 0], [86, 180, 233], [0, 158, 115]]
OTHER_COLOR = [204, 121, 167]
ERROR_COLORS = {RIGHT: [0, 114, 178], WRONG: [213, 94, 0], VOID: [128, 128, 128]}
SCALE = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]  # viridis
AGREE_COLOR = [128, 128, 128]  # seldom seen: where all agree, the map is transparent


class Panel(TypedDict):
    """One image with a map over it.

    maps: base64 of zlib-compressed ids, row by row, of `size` [width, height]; one, or one for each
        of the view's choices. colors, safe_colors: [r, g, b, alpha] of each id; ids beyond them are
        transparent. state: "ready", "running", "waiting" or "failed". architecture: whose drawing
        can be shown below; "" for none.
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
    """A color and what it stands for.

    group: entries of one group mean the same class. ids: those that bear it in each panel.
    shares: of the image, in each panel; None where there is no answer.
    """

    name: str
    group: str
    color: list[int]
    safe_color: list[int]
    ids: list[list[int]]
    shares: list[float | None]


class Scale(TypedDict):
    """Ids 0 to 255 stand for 0 to `highest`, shown in `unit` with so many digits."""

    highest: float
    unit: str
    digits: int
    low: str
    high: str
    colors: list[list[int]]


class OtherNetwork(TypedDict):
    """A network that can take the place of one that is shown. name: the served network's."""

    name: str
    title: str


class View(TypedDict):
    """The viewer's value. size: [width, height] of the image. views: those that it offers.
    choices: names of the maps that every panel has. downloads: each panel can be downloaded.
    extras: panels that the visitor may show in the place of others, the ground truth for example.
    others: networks that are served besides. share: what the share button gives."""

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
    """RGB as a JPEG in a data URL, at most DISPLAY_SIZE: no file of it is written."""
    if max(image.size) > DISPLAY_SIZE:
        image = resize_image(image, DISPLAY_SIZE)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def display(ids: NDArray[np.uint8], longer_side: int = DISPLAY_SIZE) -> NDArray[np.uint8]:
    """A map (H, W) at most `longer_side` pixels, no id of it invented."""
    if max(ids.shape) <= longer_side:
        return ids
    return resize(ids, longer_side, nearest=True)


def packed(ids: NDArray[np.uint8]) -> str:
    """(h, w) as base64 of its zlib-compressed bytes."""
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
    """The viewer's value for the image at `url`, whose (height, width) is `size`."""
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
    """A panel of maps of one shape (h, w). colors: [r, g, b] of each id. safe_colors: the same
    where the visitor wants the color-blind-safe palette. transparent: ids that show the image."""
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
    """A ground truth. target: (H, W) ids into class_names, void as 255."""

    target: NDArray[np.uint8]
    class_names: list[str]
    palette: list[list[int]]

    def panel(self) -> Panel:
        """The panel that shows it."""
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
    """The masks of the networks that have answered; the next is running, the others wait.
    others, share: as in `View`."""
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
    """A mask."""
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
    """A network's mask, or why there is none."""
    title = answer.network.title
    if isinstance(answer, ModelResult):
        caption = strings.caption(answer.network, answer.seconds)
        return class_panel(answer.segmentation, title, caption)
    caption = strings.caption(answer.network, None)
    return panel(title, caption=caption, state="failed", note=strings.NETWORK_FAILED)


def pending_panel(title: str, running: bool, caption: str = "") -> Panel:
    """A map that is being computed, or waits for its turn."""
    state, note = ("running", strings.RUNNING) if running else ("waiting", strings.WAITING)
    return panel(title, caption=caption, state=state, note=note)


def stream_view(
    url: str,
    size: Sequence[int],
    titles: Sequence[str],
    panels: Iterator[Panel],
    **options: Any,
) -> Iterator[View]:
    """A view whose panels come one after the other. size: (height, width). options: of `view`."""
    ready: list[Panel] = []
    while len(ready) < len(titles):
        pending = [
            pending_panel(title, number == 0) for number, title in enumerate(titles[len(ready) :])
        ]
        yield view(url, size, unique_titles([*ready, *pending]), **options)
        ready.append(next(panels))
    yield view(url, size, unique_titles(ready), **options)


def unique_titles(panels: Sequence[Panel]) -> list[Panel]:
    """The panels, a number behind titles that would be there twice."""
    plain = [entry["title"] for entry in panels]
    titles = [
        title if title not in plain[:number] else f"{title} ({plain[:number].count(title) + 1})"
        for number, title in enumerate(plain)
    ]
    return [{**entry, "title": title} for entry, title in zip(panels, titles, strict=True)]


def class_legend(
    networks: Sequence[ServedModel], answers: Answers = (), truth: Truth | None = None
) -> list[LegendEntry]:
    """Each class once, with its ids and its share of the image in each network, and last its ids in
    the ground truth. A class to which two networks give different colors is there with both."""
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
                for area, own in zip(areas, ids, strict=False)  # of the truth none are stated
            ],
        }
        for (name, color), ids in entries.items()
    ]


def _owner(networks: Sequence[ServedModel], ids: Sequence[Sequence[int]]) -> str:
    owners = [network.name for network, own in zip(networks, ids, strict=False) if own]
    return ", ".join(owners) or strings.TRUTH


def _entry(name: str, color: Sequence[int], ids: Sequence[Sequence[int]]) -> LegendEntry:
    """A legend entry that is no class."""
    return {
        "name": name,
        "group": name,
        "color": list(color),
        "safe_color": list(color),
        "ids": [list(own) for own in ids],
        "shares": [None] * len(ids),
    }


def agreement_view(url: str, size: Sequence[int], results: Sequence[ModelResult]) -> View:
    """Where all networks agree (transparent), where one disagrees, and the share of each."""
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
    """The scale of a view whose ids are numbers."""
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
    """(256, 3) colors of the scale."""
    points = np.linspace(0, 255, len(SCALE))
    channels = [np.interp(np.arange(256), points, [color[c] for color in SCALE]) for c in range(3)]
    return np.rint(np.stack(channels, 1)).astype(int).tolist()


def heat_panel(
    network: ServedModel, probabilities: NDArray[np.float32], choices: Sequence[str]
) -> Panel:
    """(num_classes, h, w) probabilities: for the first choice the winning class's, the network's
    confidence, and then for each named class its own, 0 where the network has no such class."""
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
    """(H, W) variances, shown as standard deviations."""
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
    """The ground truth, and beside it each network's errors."""
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
