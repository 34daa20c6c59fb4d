"""The visual parts of the page: HTML that needs no network and no pixels."""

from collections.abc import Mapping, Sequence
from html import escape

from .compare import Network, Result, agreement
from .hub import SegmentationModel

CSS = """
.gradio-container { max-width: 1400px !important; margin: 0 auto !important; }
ul.legend { display: flex; flex-wrap: wrap; gap: 0.3rem 1.1rem; list-style: none; padding: 0;
  margin: 0; }
ul.legend li { margin: 0; white-space: nowrap; }
.swatch { display: inline-block; width: 1em; height: 1em; border-radius: 3px;
  vertical-align: -0.12em; border: 1px solid var(--border-color-primary); margin-right: 0.2em; }
table.areas { width: 100%; max-width: 42rem; border: 0 !important; border-collapse: collapse; }
table.areas caption { text-align: left; padding-bottom: 0.4rem; }
table.areas th, table.areas td { border: 0 !important; padding: 0.2rem 0.4rem !important;
  border-bottom: 1px solid var(--border-color-primary) !important; text-align: right;
  font-variant-numeric: tabular-nums; }
table.areas tr { border: 0 !important; }
table.areas th { font-weight: normal; }
table.areas thead th { font-weight: 600; }
table.areas th:first-child { text-align: left; white-space: nowrap; }
table.areas tr.absent { opacity: 0.6; }
p.caption { margin: 0; font-size: var(--text-sm); }
"""


def legend(model: SegmentationModel) -> str:
    """A colour and a name for each class, as HTML."""
    items = (
        f"<li>{_swatch(color)} {escape(name)}</li>"
        for name, color in zip(model.class_names, model.palette, strict=True)
    )
    return f'<ul class="legend" aria-label="Colours of the classes">{"".join(items)}</ul>'


def areas_table(networks: Sequence[Network], results: Sequence[Result]) -> str:
    """The share of the picture that each network gives to each class, as an HTML table: the
    largest class first, those that no network has found last and faint. A network without a
    result yet has an ellipsis."""
    model = networks[0].segmenter.model
    areas = {result.network.name: result.segmentation.areas() for result in results}
    ids = sorted(
        range(model.num_classes),
        key=lambda i: -sum(shares[model.class_names[i]] for shares in areas.values()),
    )
    head = "".join(f'<th scope="col">{escape(network.title)}</th>' for network in networks)
    rows = "".join(_areas_row(model.class_names[i], model.palette[i], networks, areas) for i in ids)
    same = agreement([result.segmentation.class_map for result in results])
    agree = f" All agree on <strong>{100 * same:.1f} %</strong> of it."
    return (
        '<table class="areas"><caption>What the networks see, as shares of the picture.'
        f"{agree if len(results) > 1 else ''}</caption>"
        f'<thead><tr><th scope="col">Class</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )


def _areas_row(
    name: str,
    color: Sequence[int],
    networks: Sequence[Network],
    areas: Mapping[str, Mapping[str, float]],
) -> str:
    shares = [areas[n.name][name] if n.name in areas else None for n in networks]
    cells = "".join(f"<td>{_percent(share)}</td>" for share in shares)
    faint = "" if any(shares) else ' class="absent"'
    return f'<tr{faint}><th scope="row">{_swatch(color)} {escape(name)}</th>{cells}</tr>'


def caption(network: Network, seconds: float | None) -> str:
    """A line under a panel: its seconds, once there are any, and the network's size."""
    size = f"{network.parameters / 1e6:.1f} M parameters"
    device = network.segmenter.device.type.upper()
    time = "" if seconds is None else f"<strong>{seconds:.2f} s</strong> on the {device} · "
    return f'<p class="caption">{time}{size}</p>'


def _swatch(color: Sequence[int]) -> str:
    red, green, blue = (int(value) for value in color)
    return f'<span class="swatch" style="background: rgb({red}, {green}, {blue})"></span>'


def _percent(share: float | None) -> str:
    if share is None:
        return "…"
    return "-" if share == 0 else "&lt; 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"
