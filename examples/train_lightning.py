"""Train a network with Lightning.

pip install lightning
python examples/train_lightning.py DATA OUT
"""

import sys
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from segmodels import SegNet
from segmodels.training import AugmentedData, TrainingConfig, lovasz_softmax, open_dataset


class Module(lightning.LightningModule):
    """SegNet-Basic, trained with cross entropy and the Lovász-softmax loss."""

    def __init__(self, class_names: list[str]) -> None:
        super().__init__()
        self.model = SegNet(class_names=class_names, variant="basic")
        self.losses: list[float] = []

    def training_step(self, batch: Any, _: int) -> Tensor:
        pixels, target = batch
        mean = torch.tensor(self.model.image_mean, device=pixels.device)[:, None, None]
        std = torch.tensor(self.model.image_std, device=pixels.device)[:, None, None]
        logits = self.model((pixels - mean) / std)
        loss = torch.nn.functional.cross_entropy(logits, target, ignore_index=255)
        loss = loss + lovasz_softmax(logits, target)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main(data: str, out: str, epochs: int = 2) -> list[float]:
    """Train on the split `train` and return the loss of every step."""
    lightning.seed_everything(0)
    train = open_dataset(data, "train")
    config = TrainingConfig("segnet", data, crop=(32, 32), batch_size=2)
    module = Module(train.class_names)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, DataLoader(AugmentedData(train, config, epoch=0), 2, shuffle=True))
    module.model.eval().save_pretrained(out)
    return module.losses


if __name__ == "__main__":
    print(f"last loss {main(*sys.argv[1:3])[-1]:.3f}")
