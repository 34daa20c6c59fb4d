"""Evaluate a network with torchmetrics.

pip install torchmetrics
python examples/evaluate_torchmetrics.py MODEL DATA
"""

import sys

import torch
from torchmetrics.classification import MulticlassJaccardIndex

from segmodels import Segmenter, load_model
from segmodels.training import open_dataset


def main(source: str, data: str, split: str = "val") -> list[float]:
    """Compute the IoU of each class on a split."""
    model = load_model(source)
    segmenter = Segmenter(model, "cpu", "fp32")
    metric = MulticlassJaccardIndex(model.num_classes, average="none", ignore_index=255)
    dataset = open_dataset(data, split)
    for index in range(len(dataset)):
        image, target = dataset.pair(index)
        class_map = segmenter(image).class_map
        metric.update(torch.from_numpy(class_map).long(), torch.from_numpy(target).long())
    return metric.compute().tolist()


if __name__ == "__main__":
    print(main(*sys.argv[1:3]))
