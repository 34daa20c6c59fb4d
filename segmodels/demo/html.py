"""Plots as HTML tables with bars, which work with screen readers and in dark mode as they are."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import isnan
from pathlib import Path

from segmodels.demo import strings
from segmodels.demo.ground_truth import Judgement
from segmodels.demo.model_facts import PAPERS, Measured, card_address, code_address, measured
from segmodels.inference.comparison import ModelResult, ServedModel
from segmodels.utils.palette import is_background

Timing = tuple[float, int]  # median seconds and number of warm runs; 0 runs: a single cold run


def areas_plot(networks: Sequence[ServedModel], results: Sequence[ModelResult]) -> str:
    """Plot the share of the image that each network assigns to each class.

    The largest class comes first and background last. Classes that no network found are listed
    below the table.
    """
    areas = {result.network.source: result.segmentation.areas() for result in results}
    colors = {
        name: color
        for network in networks
        for name, color in zip(network.model.class_names, network.model.palette, strict=True)
    }
    largest = {name: max(share.get(name, 0.0) for share in areas.values()) for name in colors}
    names = sorted(
        (name for name in colors if largest[name]),
        key=lambda name: (is_background(name), -largest[name]),
    )
    longest = max(largest.values())
    absent = [escape(name) for name in colors if not largest[name] and not is_background(name)]
    rows = []
    for name in names:
        cells = (
            _bar(areas[network.source].get(name), longest, colors[name])
            if network.source in areas
            else "<td>…</td>"
            for network in networks
        )
        rows.append(_row(name, colors[name], cells))
    titles = [network.title for network in networks]
    found = f"<p>{strings.VIEWER['absent']}: {', '.join(absent)}.</p>" if absent else ""
    return _table("Share of the image", ["Class", *titles], rows) + found


def speed_plot(results: Sequence[ModelResult], timings: Mapping[str, Timing]) -> str:
    """Plot the run time and number of parameters of each network.

    Args:
        results: At least one result.
        timings: Timings by source. For a missing network, the seconds of its result are shown as
            those of one run.
    """
    seconds = {
        result.network.source: timings.get(result.network.source, (result.seconds, 0))
        for result in results
    }
    slowest = max(value for value, _ in seconds.values())
    largest = max(result.network.parameters for result in results)
    rows = []
    for result in results:
        value, runs = seconds[result.network.source]
        how = {0: "one run", 1: "one warm run"}.get(runs, f"median of {runs} warm runs")
        rows.append(
            f'<tr><th scope="row">{escape(result.network.title)}</th>'
            f"{_bar(value, slowest, None, f'{value:.2f} s, {how}')}"
            f"{_bar(result.network.parameters, largest, None, millions(result.network))}</tr>"
        )
    device = results[0].network.segmenter.device.type.upper()
    return _table("Speed and size", ["Network", f"Seconds on the {device}", "Parameters"], rows)


def networks_table(networks: Sequence[ServedModel], timings: Mapping[str, Timing]) -> str:
    """Return a table that describes each network, with measurements and links.

    Args:
        networks: At least one network.
        timings: Timings by source. No time is shown for missing networks.
    """
    found = {network.source: measured(network.source) for network in networks}
    datasets = {entry.dataset for entry in found.values() if entry}
    common = datasets.pop() if len(datasets) == 1 else ""
    rows = [
        _network_row(network, found[network.source], common, timings.get(network.source))
        for network in networks
    ]
    metric = f"mean IoU, {common}" if common else "mean IoU"
    device = networks[0].segmenter.device.type.upper()
    head = ["Network", "Year", "Idea", "Parameters", metric, f"Median time ({device})", "Read"]
    return _table(strings.NETWORKS_CAPTION, head, rows)


def _network_row(
    network: ServedModel, metric: Measured | None, common: str, timing: Timing | None
) -> str:
    paper = PAPERS[network.model.architecture]
    mean_iou = f"{100 * metric.mean_iou:.1f} %" if metric else "-"
    if metric and not common:
        mean_iou += f" ({metric.dataset})"
    time = "-" if timing is None else f"{timing[0]:.2f} s"
    links = [
        ("paper", paper.address),
        ("card", card_address(network)),
        ("code", code_address(network.model.architecture)),
    ]
    cells = [str(paper.year), paper.idea, millions(network), mean_iou, time]
    return (
        f'<tr><th scope="row">{escape(network.title)}</th>'
        + "".join(
            f'<td data-label="{escape(label)}">{escape(cell)}</td>'
            for label, cell in zip(strings.NETWORKS_LABELS, cells, strict=True)
        )
        + f"<td>{' · '.join(_link(network.title, *link) for link in links if link[1])}</td></tr>"
    )


def _link(title: str, kind: str, address: str | None) -> str:
    label = strings.LINKS[kind]
    return (
        f'<a href="{escape(address or "")}" target="_blank" rel="noopener" '
        f'aria-label="{escape(f"{label} of {title}")}">{escape(label)}</a>'
    )


def outside_hint(text: str, scene: str, label: str) -> str:
    """Return a notice with a button that switches to `scene`; no button if `scene` is empty."""
    button = (
        f'<button type="button" data-scene="{escape(scene)}">{escape(label)}</button>'
        if scene
        else ""
    )
    return f'<div class="notice hint" role="status"><span>{escape(text)}</span>{button}</div>'


def iou_plot(
    judgements: Sequence[Judgement],
    class_names: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> str:
    """Plot the IoU of each result for each class of the ground truth."""
    rows = [
        _row(name, color, (_iou_bar(float(each.iou[i]), color) for each in judgements))
        for i, (name, color) in enumerate(zip(class_names, palette, strict=True))
        if not all(isnan(each.iou[i]) for each in judgements)
    ]
    means = "".join(_iou_bar(each.mean_iou, None) for each in judgements)
    rows.append(f'<tr class="total"><th scope="row">mean IoU</th>{means}</tr>')
    titles = [each.result.network.title for each in judgements]
    return _table("Intersection over union", ["Class", *titles], rows)


def millions(network: ServedModel) -> str:
    """Format the number of parameters, e.g. "31.0 M"."""
    return f"{network.parameters / 1e6:.1f} M"


def figure(svg: Path, alt: str) -> str:
    """Embed one of the package's SVG drawings, so that it takes the page's colours."""
    drawing = svg.read_text(encoding="utf-8")
    return f'<div class="drawing" role="img" aria-label="{escape(alt)}">{drawing}</div>'


def notice(text: str, *, problem: bool = False) -> str:
    """Return a notice, styled as an alert if it is a problem; "" for an empty text."""
    if not text:
        return ""
    role = "alert" if problem else "status"
    return f'<p class="notice{" problem" if problem else ""}" role="{role}">{escape(text)}</p>'


def _iou_bar(value: float, color: Sequence[int] | None) -> str:
    return _bar(None if isnan(value) else value, 1.0, color, f"{100 * value:.1f} %")


def _table(caption: str, head: Sequence[str], rows: Sequence[str]) -> str:
    columns = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    return (
        f'<div class="plot"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(name: str, color: Sequence[int], cells: Iterable[str]) -> str:
    return f'<tr><th scope="row">{_swatch(color)} {escape(name)}</th>{"".join(cells)}</tr>'


def _bar(
    value: float | None, longest: float, color: Sequence[int] | None, text: str | None = None
) -> str:
    """Return a cell with a number and a bar of relative length `value / longest`."""
    if value is None:
        return "<td>-</td>"
    width = 100 * value / longest if longest else 0
    background = f"background: {_rgb(color)}; " if color else ""
    bar = f'<div class="bar" style="{background}width: {width:.1f}%"></div>' if width else ""
    return f"<td><span>{escape(text or strings.percent(value))}</span>{bar}</td>"


def _swatch(color: Sequence[int]) -> str:
    return f'<span class="swatch" style="background: {_rgb(color)}"></span>'


def _rgb(color: Sequence[int]) -> str:
    red, green, blue = (int(value) for value in color)
    return f"rgb({red}, {green}, {blue})"
