"""Train a network in a custom loop: networks are plain `nn.Module`s that return raw logits.

python examples/train_own_loop.py DATA OUT
"""

import sys

import torch
from torch.utils.data import DataLoader

from segmodels import Segmenter, UNet
from segmodels.training import AugmentedData, TrainingConfig, evaluate, open_dataset


def main(data: str, out: str, epochs: int = 2, base_channels: int = 16) -> float:
    """Train on the split `train` and return the mean IoU on `val`."""
    torch.manual_seed(0)
    train, val = open_dataset(data, "train"), open_dataset(data, "val")
    config = TrainingConfig("unet", data, crop=(32, 32), batch_size=2)
    model = UNet(class_names=train.class_names, base_channels=base_channels)
    mean = torch.tensor(model.image_mean)[:, None, None]
    std = torch.tensor(model.image_std)[:, None, None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for epoch in range(epochs):
        for pixels, target in DataLoader(AugmentedData(train, config, epoch), 2, shuffle=True):
            logits = model((pixels - mean) / std)
            loss = torch.nn.functional.cross_entropy(logits, target, ignore_index=255)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    model.eval().save_pretrained(out)
    return evaluate(Segmenter(model, "cpu"), val, quiet=True).mean_iou


if __name__ == "__main__":
    print(f"mean IoU {main(*sys.argv[1:3]):.3f}")
