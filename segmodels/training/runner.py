"""Training: from a data set and, for its encoder, VGG16's ImageNet weights to a folder that
`from_pretrained` reads."""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from tqdm import tqdm

from segmodels.data.dataset import DataError
from segmodels.hub.filenames import TRAINING_NAME, WEIGHTS_NAME
from segmodels.training.checkpointing import load_checkpoint, save_checkpoint
from segmodels.training.config import (
    TrainingConfig,
    TrainingError,
    check_same,
    read_config,
    record_of,
    settled,
    write_record,
)
from segmodels.training.trainer import Trainer
from segmodels.utils.distributed import accelerator_for, is_main_process
from segmodels.utils.files import write_text
from segmodels.utils.malloc import keep_memory

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

__all__ = ["Trainer", "TrainingConfig", "TrainingError", "train"]

CHECKPOINT_NAME = "checkpoint.pt"
LOG_NAME = "metrics.jsonl"


def train(
    config: TrainingConfig,
    out: str | Path,
    *,
    device: str | torch.device = "cpu",
    workers: int = 0,
    tracker: "str | GeneralTracker | None" = None,
    checkpoint_seconds: float = 120.0,
    validate_every: int = 5,
    stop_after_steps: int | None = None,
) -> None:
    """Train, and leave in `out` the network (fp16), `training.json` and `metrics.jsonl`; continues
    from `out`'s checkpoint if there is one of the same config, and does nothing if `out` holds the
    finished training already. Started in several processes, they share each batch.

    workers: processes that load pictures; 0: this one does.
    tracker: where the lines of `metrics.jsonl` go too, see `processes.accelerator_for`.
    validate_every: epochs between two measurements on the split "val", if there is one.
    stop_after_steps: leave off there, as an interruption would (for tests).
    Raises TrainingError, ProcessError for what the machine lacks, DataError for the data set,
    CheckpointError for the VGG16 weights, OSError for a log that cannot be written.
    """
    out, config = Path(out), settled(config)
    if _is_finished(config, out):
        print(f"{out} holds this training already, finished", file=sys.stderr)
        return
    accelerator = accelerator_for(device, config.precision, tracker, out)
    if accelerator.device.type == "cpu":
        keep_memory()
    trainer = Trainer(config, accelerator)
    if (out / CHECKPOINT_NAME).exists():
        load_checkpoint(trainer, out / CHECKPOINT_NAME)
    run = _Run(trainer, out, checkpoint_seconds, validate_every)
    accelerator.wait_for_everyone()  # before the checkpoint is written anew
    run.prepare()
    try:
        while trainer.step < trainer.total_steps:
            for batch in trainer.batches(workers):
                run.step(batch)
                if trainer.step == stop_after_steps:
                    run.save_checkpoint()
                    return
    except DataError:  # a file that changed on the way: what was learnt until then is kept
        run.save_checkpoint()
        raise
    finally:
        run.bar.close()
    run.finish()


class _Run:
    """A training on its way in a folder: what is shown, logged and saved. Only the main process of
    several writes."""

    def __init__(
        self, trainer: Trainer, out: Path, checkpoint_seconds: float, validate_every: int
    ) -> None:
        self.trainer, self.out = trainer, out
        self.checkpoint_seconds, self.validate_every = checkpoint_seconds, validate_every
        start = trainer.config.start
        self.before = record_of(start) if start else None
        self.is_main = is_main_process()
        self.last_save = time.monotonic()
        self.bar = tqdm(
            total=trainer.total_steps,
            initial=trainer.step,
            unit="step",
            smoothing=0.1,
            disable=not self.is_main,
        )

    def prepare(self) -> None:
        if self.is_main:
            self.out.mkdir(parents=True, exist_ok=True)
            _tidy(self.out, self.trainer.step)
        config = {
            key: value if isinstance(value, int | float) else str(value)
            for key, value in self.trainer.config.published().items()
        }
        self.trainer.accelerator.init_trackers("segmodels", config)

    def step(self, batch: tuple[torch.Tensor, ...]) -> None:
        trainer = self.trainer
        loss = trainer.take_step(*batch)
        self.bar.update()
        self.bar.set_postfix(epoch=trainer.epochs_done, loss=f"{loss:.3f}")
        if trainer.step % trainer.steps_per_epoch == 0:  # before a checkpoint may be saved
            self.log(trainer.epoch_record(self.validate_every))
        if time.monotonic() - self.last_save > self.checkpoint_seconds:
            self.save_checkpoint()

    def log(self, record: dict[str, Any]) -> None:
        if self.is_main:
            with open(self.out / LOG_NAME, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        figures = {key: value for key, value in record.items() if not isinstance(value, bool)}
        self.trainer.accelerator.log(figures, step=record["step"])

    def save_checkpoint(self) -> None:
        """A disk that is full does not end the training: the old checkpoint stays, and the next one
        may succeed."""
        self.last_save = time.monotonic()
        if not self.is_main:
            return
        path = self.out / CHECKPOINT_NAME
        try:
            save_checkpoint(self.trainer, path)
        except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError
            kept = "the one before is kept" if path.exists() else "there is none yet"
            self.bar.write(
                f"segmodels: {path} could not be written at step {self.trainer.step} ({error}); "
                f"{kept}, and training goes on: free some space",
                file=sys.stderr,
            )

    def finish(self) -> None:
        trainer, accelerator = self.trainer, self.trainer.accelerator
        self.save_checkpoint()
        trainer.recompute_batch_norms()
        final = {"epoch": trainer.config.epochs, "step": trainer.step, "final": True}
        self.log(final | trainer.validate())
        accelerator.wait_for_everyone()  # before they part
        accelerator.end_training()
        if self.is_main:
            try:
                self._write_result()
            except (OSError, SafetensorError) as error:
                raise TrainingError(
                    f"the trained network could not be written to {self.out} ({error}); its "
                    "checkpoint is there: free some space and give the same command again"
                ) from error

    def _write_result(self) -> None:
        self.trainer.result.save_pretrained(self.out, dtype=torch.float16)
        write_record(self.out, self.trainer.config, self.before)
        (self.out / CHECKPOINT_NAME).unlink(missing_ok=True)


def _is_finished(config: TrainingConfig, out: Path) -> bool:
    """Whether `out` holds this training's result. TrainingError if it holds another's."""
    if (out / CHECKPOINT_NAME).exists() or not (out / WEIGHTS_NAME).exists():
        return False
    try:
        theirs = read_config(out)
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(
            f"{out} holds a network already, and no {TRAINING_NAME} that says how it was trained "
            f"({error}): give another --out"
        ) from error
    check_same(theirs, config, f"{out} holds")
    return True


def _tidy(out: Path, step: int) -> None:
    """Take away what an interrupted run left: files half written, and what it logged after `step`,
    where this one goes on."""
    for scratch in out.glob(".*.tmp"):
        scratch.unlink()
    for scratch in out.glob(".saving-*"):  # of `save_pretrained`
        shutil.rmtree(scratch)
    log = out / LOG_NAME
    if not log.exists():
        return
    kept = [line for line in log.read_text(encoding="utf-8").splitlines() if _is_until(line, step)]
    write_text(log, "".join(line + "\n" for line in kept))


def _is_until(line: str, step: int) -> bool:
    try:
        record = json.loads(line)
        return record["step"] <= step and "final" not in record
    except (ValueError, KeyError, TypeError):  # cut off, or a final record
        return False
