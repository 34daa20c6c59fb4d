"""What the page's viewer (assets/viewer.js) is given: a picture, maps over it as packed bytes, and
their colours, as JSON. The browser paints, so that opacity and classes change at once and the
server encodes no overlay."""

import base64
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segmodels.data.image_io import resize
from segmodels.demo import strings
from segmodels.demo.ground_truth import Judgement
from segmodels.inference.comparison import Failure, Network, Result, comparable
from segmodels.inference.maps import AGREE, RIGHT, VOID, WRONG, disagreement, quantised
from segmodels.inference.results import ClassPicture

DISPLAY_SIZE = 1280  # longer side of what the browser gets, pixels
HEAT_SIZE = 640  # the same for probabilities, which are smooth
JPEG_QUALITY = 85
OPACITY = 0.6
HIGHEST_DEVIATION = 0.08  # of class probabilities; larger ones look like it

# Colour-blind safe (Okabe and Ito, 2008); the last stands for "no single one".
NETWORK_COLORS = [[230, 159, 0], [86, 180, 233], [0, 158, 115]]
OTHER_COLOR = [204, 121, 167]
ERROR_COLORS = {RIGHT: [0, 114, 178], WRONG: [213, 94, 0], VOID: [128, 128, 128]}
SCALE = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]  # viridis

View = dict[str, Any]
Panel = dict[str, Any]


def picture_url(picture: NDArray[np.uint8]) -> str:
    """(H, W, 3) uint8 as a JPEG in a data URL, at most DISPLAY_SIZE: no file of it is written."""
    buffer = io.BytesIO()
    Image.fromarray(display(picture)).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def display(values: NDArray[np.uint8], longer_side: int = DISPLAY_SIZE) -> NDArray[np.uint8]:
    """A picture, or a map of ids, at most `longer_side` pixels."""
    if max(values.shape[:2]) <= longer_side:
        return values
    return resize(values, longer_side, nearest=values.ndim == 2)


def packed(ids: NDArray[np.uint8]) -> str:
    """(h, w) as base64 of its zlib-compressed bytes."""
    return base64.b64encode(zlib.compress(ids.tobytes(), 1)).decode()


def view(
    url: str,
    size: Sequence[int],
    panels: Sequence[Panel],
    *,
    legend: Sequence[Mapping[str, Any]] = (),
    status: str = "",
    opacity: float = OPACITY,
    scale: Mapping[str, Any] | None = None,
    choices: Sequence[str] | None = None,
) -> View:
    """The viewer's value. url: of the picture, whose (height, width) is `size`. legend: a name, a
    colour and the ids that bear it in each panel. scale: where ids are numbers, see `scale`.
    choices: names of the maps that every panel has."""
    return {
        "picture": url,
        "size": [int(size[1]), int(size[0])],
        "panels": list(panels),
        "legend": list(legend),
        "status": status,
        "opacity": opacity,
        "scale": scale,
        "choices": choices,
        "labels": strings.VIEWER,
    }


def panel(
    title: str,
    maps: Sequence[NDArray[np.uint8]] = (),
    colors: Sequence[Sequence[int]] = (),
    *,
    names: Sequence[str] = (),
    caption: str = "",
    alt: str = "",
    state: str = "ready",
    note: str = "",
) -> Panel:
    """One map, or one for each of the view's choices, all of one shape (h, w). colors: [r, g, b] of
    each id; ids beyond them are transparent. state: ready, running, waiting or failed."""
    return {
        "title": title,
        "maps": [packed(ids) for ids in maps],
        "size": list(maps[0].shape[::-1]) if maps else None,
        "colors": [[*map(int, color), 255] for color in colors],
        "names": list(names),
        "caption": caption,
        "alt": alt or f"{title}: {note}",
        "state": state,
        "note": note,
    }


def comparison(
    url: str, size: Sequence[int], networks: Sequence[Network], answers: Sequence[Result | Failure]
) -> View:
    """The masks of those networks that have answered; the next is running, the others wait."""
    panels = [answer_panel(answer) for answer in answers]
    for network in networks[len(answers) :]:
        caption = strings.caption(network, None)
        panels.append(pending_panel(network.title, len(panels) == len(answers), caption))
    return view(
        url,
        size,
        unique_titles(panels),
        legend=class_legend(networks),
        status=strings.progress(networks, answers),
    )


def class_panel(segmentation: ClassPicture, title: str, caption: str) -> Panel:
    """A mask."""
    return panel(
        title,
        [display(segmentation.class_map)],
        segmentation.palette,
        names=segmentation.class_names,
        caption=caption,
        alt=strings.mask_alt(title, segmentation.areas()),
    )


def answer_panel(answer: Result | Failure) -> Panel:
    """A network's mask, or why there is none."""
    title = answer.network.title
    if isinstance(answer, Result):
        caption = strings.caption(answer.network, answer.seconds)
        return class_panel(answer.segmentation, title, caption)
    caption = strings.caption(answer.network, None)
    return panel(title, caption=caption, state="failed", note=strings.failed(answer.reason))


def pending_panel(title: str, running: bool, caption: str = "") -> Panel:
    """A map that is being made, or waits for its turn."""
    state, note = ("running", strings.RUNNING) if running else ("waiting", strings.WAITING)
    return panel(title, caption=caption, state=state, note=note)


def stream_view(
    url: str,
    shape: Sequence[int],
    titles: Sequence[str],
    panels: Iterator[Panel],
    **options: Any,
) -> Iterator[View]:
    """A view whose panels come one after the other. shape: (height, width, ...). options: of
    `view`."""
    ready: list[Panel] = []
    while len(ready) < len(titles):
        pending = [
            pending_panel(title, number == 0) for number, title in enumerate(titles[len(ready) :])
        ]
        yield view(url, shape[:2], unique_titles([*ready, *pending]), **options)
        ready.append(next(panels))
    yield view(url, shape[:2], unique_titles(ready), **options)


def unique_titles(panels: Sequence[Panel]) -> list[Panel]:
    """The panels, a number behind titles that would be there twice."""
    plain = [entry["title"] for entry in panels]
    titles = [
        title if title not in plain[:number] else f"{title} ({plain[:number].count(title) + 1})"
        for number, title in enumerate(plain)
    ]
    return [entry | {"title": title} for entry, title in zip(panels, titles, strict=True)]


def class_legend(networks: Sequence[Network]) -> list[dict[str, Any]]:
    """Each class once, with its ids in each network. A class to which two networks give different
    colours is there with both."""
    entries: dict[tuple[str, tuple[int, ...]], list[list[int]]] = {}
    for number, network in enumerate(networks):
        for class_id, (name, color) in enumerate(
            zip(network.model.class_names, network.model.palette, strict=True)
        ):
            ids = entries.setdefault((name, tuple(color)), [[] for _ in networks])
            ids[number].append(class_id)
    names = [name for name, _ in entries]
    return [
        {
            "name": name if names.count(name) == 1 else f"{name} ({_owner(networks, ids)})",
            "color": list(color),
            "ids": ids,
        }
        for (name, color), ids in entries.items()
    ]


def _owner(networks: Sequence[Network], ids: Sequence[Sequence[int]]) -> str:
    return ", ".join(network.name for network, own in zip(networks, ids, strict=True) if own)


def agreement_view(url: str, size: Sequence[int], results: Sequence[Result]) -> View:
    """Where all agree, where which one departs, and how much of the picture each is."""
    ids = disagreement(comparable(results))
    shares = np.bincount(ids.ravel(), minlength=len(results) + 2) / ids.size
    titles = [result.network.title for result in results]
    colors = [[255, 255, 255], *NETWORK_COLORS[: len(results)]]
    colors += [[160, 160, 160]] * (len(results) + 1 - len(colors)) + [OTHER_COLOR]
    names = strings.disagreement_names(titles)
    shown = [i for i in range(len(names)) if i in (AGREE, len(names) - 1) or len(results) > 2]
    legend: list[dict[str, Any]] = [
        {"name": f"{names[i]}: {strings.percent(shares[i])}", "color": colors[i], "ids": [[i]]}
        for i in shown
    ]
    alt = ". ".join(entry["name"] for entry in legend)
    maps = panel(strings.AGREEMENT, [display(ids)], colors, names=names, alt=alt)
    return view(url, size, [maps], legend=legend, opacity=0.75)


def scale(highest: float, unit: str, digits: int) -> dict[str, Any]:
    """Ids 0 to 255 stand for 0 to `highest`, shown in `unit` with so many digits."""
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
    """(256, 3) colours of the scale."""
    points = np.linspace(0, 255, len(SCALE))
    channels = [np.interp(np.arange(256), points, [color[c] for color in SCALE]) for c in range(3)]
    return np.rint(np.stack(channels, 1)).astype(int).tolist()


def heat_panel(
    network: Network, probabilities: NDArray[np.float32], choices: Sequence[str]
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
        caption=caption,
        alt=f"{network.title}: {caption}",
    )


def uncertainty_panel(network: Network, uncertainty: NDArray[np.float32], samples: int) -> Panel:
    """(H, W) variances, shown as deviations, the root of them."""
    deviation = np.sqrt(uncertainty)
    caption = strings.mean_deviation(float(deviation.mean()), samples)
    return panel(
        network.title,
        [display(quantised(deviation, HIGHEST_DEVIATION), HEAT_SIZE)],
        scale_colors(),
        caption=caption,
        alt=f"{network.title}: {caption}",
    )


def error_view(
    url: str,
    target: NDArray[np.uint8],
    class_names: Sequence[str],
    palette: Sequence[Sequence[int]],
    judgements: Sequence[Judgement],
) -> View:
    """The truth, and beside it each network's errors."""
    colors: list[list[int]] = [ERROR_COLORS[kind] for kind in (RIGHT, WRONG, VOID)]
    truth = panel(strings.TRUTH, [display(target)], palette, names=class_names, alt=strings.TRUTH)
    panels = [truth] + [
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
        {
            "name": strings.ERRORS[kind],
            "color": colors[kind],
            "ids": [[], *([kind] for _ in judgements)],
        }
        for kind in (RIGHT, WRONG, VOID)
    ]
    return view(url, target.shape, unique_titles(panels), legend=legend)
