"""Running a training: from a dataset to a model folder that `from_pretrained` loads."""

import contextlib
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from tqdm import tqdm

from segmodels.data.dataset import DataError
from segmodels.evaluation.evaluator import Evaluation
from segmodels.hub.filenames import CONFIG_NAME, TRAINING_NAME, WEIGHTS_NAME
from segmodels.models.base import load_model
from segmodels.training.checkpointing import read_checkpoint, restore_checkpoint, save_checkpoint
from segmodels.training.config import TrainingConfig, TrainingError
from segmodels.training.dataloader import WorkerError
from segmodels.training.lock import exclusive
from segmodels.training.model_factory import resolve_defaults
from segmodels.training.plots import draw_confusion, draw_curves
from segmodels.training.record import check_same, fetch_record, read_config, write_record
from segmodels.training.trainer import Trainer
from segmodels.utils.distributed import accelerator_for, is_main_process
from segmodels.utils.files import write_text
from segmodels.utils.malloc import keep_memory

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

__all__ = ["TrainingConfig", "TrainingError", "train"]

CHECKPOINT_NAME = "checkpoint.pt"
LOG_NAME = "metrics.jsonl"
BEST_NAME = "best"
CURVES_NAME = "curves.png"
CONFUSION_NAME = "confusion.png"
KEEP = ("last", "best")
# Left behind by an interrupted training: files of `files.atomic_write`, also of earlier versions,
# and the folder of `save_pretrained`.
TEMPORARY_FILE = re.compile(
    r"\.segmodels-\d+-[0-9a-f]{8}\.tmp"
    r"|\.(checkpoint\.pt|metrics\.jsonl|training\.json)\.\d+\.tmp"
)
TEMPORARY_FOLDER = re.compile(r"\.saving-[a-z0-9_]{8}")


def train(
    config: TrainingConfig,
    out: str | Path,
    *,
    device: str | torch.device = "cpu",
    workers: int = 0,
    tracker: "str | GeneralTracker | None" = None,
    checkpoint_seconds: float = 120.0,
    validate_every: int = 5,
    keep: str = "last",
    stop_after_steps: int | None = None,
) -> Evaluation | None:
    """Train a network, or resume or extend its training.

    `out` receives the network (fp16), `training.json`, `metrics.jsonl`, `curves.png` and, if there
    is a split "val", `confusion.png`. If `out` contains a checkpoint with the same config, it is
    resumed. A finished training is not repeated; if the config has more epochs or steps, it is
    extended from its weights. With several processes, each batch is split among them.

    Args:
        config: The options.
        out: Output folder.
        device: "auto", or a torch device.
        workers: Number of processes that load images; 0: load in the main process.
        tracker: Tracker that also receives the metrics; see `distributed.accelerator_for`.
        checkpoint_seconds: Time between checkpoints.
        validate_every: Number of epochs between validations on the split "val", if there is one.
        keep: "best" also saves the network with the best validation mean IoU, in `out`/best.
        stop_after_steps: Interrupt the training after this step (for tests).

    Returns:
        The final validation; None without a split "val" or if the training was already finished.

    Raises:
        TrainingError: If the config does not fit the dataset or the content of `out`.
        ProcessError: If the device or the tracker is not available.
        DataError: If the dataset is invalid.
        CheckpointError: If weights cannot be loaded.
        OSError: If a file cannot be written.

    Examples:
        >>> from segmodels.training import TrainingConfig, train  # doctest: +SKIP
        >>> train(TrainingConfig(network="unet", data="DIR"), out="my-unet")  # doctest: +SKIP
    """
    if keep not in KEEP:
        raise ValueError(f"keep must be one of {', '.join(KEEP)}, got {keep!r}")
    if validate_every < 1:
        raise ValueError(f"validate_every must be at least 1 epoch, got {validate_every}")
    out, config = Path(out), resolve_defaults(config)
    with contextlib.ExitStack() as stack:
        if is_main_process():
            stack.enter_context(_created(out))
            stack.enter_context(exclusive(out))
        border_cache = None
        if config.border_weight:
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="segmodels_borders_"))
            border_cache = Path(name)
        previous = _Previous(out)
        if previous.is_finished_for(config):
            print(f"{out} already contains this training, and it is finished", file=sys.stderr)
            return None
        config = previous.fill_defaults(config)
        accelerator = accelerator_for(device, config.precision, tracker, out)
        if accelerator.device.type == "cpu":
            keep_memory()
        trainer = Trainer(config, accelerator, border_cache)
        previous.restore(trainer)
        run = _Run(trainer, out, checkpoint_seconds, validate_every, keep)
        accelerator.wait_for_everyone()  # before a new checkpoint is written
        run.prepare()
        if not run.run_steps(workers, stop_after_steps):
            return None
        run.finish()
        return trainer.evaluation


class _Previous:
    """The result of an earlier run in the folder: nothing, a checkpoint or a finished network."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.checkpoint = out / CHECKPOINT_NAME
        self.state: dict[str, Any] | None = None
        self.config: TrainingConfig | None = None
        if self.checkpoint.exists():
            self.config, self.state = read_checkpoint(self.checkpoint)
        elif (out / WEIGHTS_NAME).exists():
            try:
                self.config = read_config(out)
            except (OSError, ValueError, TypeError) as error:
                raise TrainingError(
                    f"{out} already contains a network, but no {TRAINING_NAME} with its options "
                    f"({error}): restart with a new --out"
                ) from error

    def is_finished_for(self, config: TrainingConfig) -> bool:
        """Whether the training is finished.

        Raises:
            TrainingError: If the folder contains another training.
        """
        if self.config is None:
            return False
        what = "contains" if self.state is None else f"contains {CHECKPOINT_NAME} of"
        check_same(self.config, config, f"{self.out} {what}")
        return self.state is None and not _is_longer(config, self.config)

    def fill_defaults(self, config: TrainingConfig) -> TrainingConfig:
        """Fill in options that depend on the dataset with those of the earlier run."""
        if self.config is None:
            return config
        names = ["batch_size", "crop"]
        if config.steps is None and config.epochs is None:
            names += ["epochs", "steps"]
        return replace(
            config, **{n: getattr(self.config, n) for n in names if getattr(config, n) is None}
        )

    def restore(self, trainer: Trainer) -> None:
        """Restore the trainer to the end of the earlier run."""
        if self.state is not None:
            restore_checkpoint(trainer, self.checkpoint, self.state)
            self.state = None  # free the memory
        elif self.config is not None:
            step = self._last_step(trainer)
            if step < trainer.total_steps:
                trainer.extend(load_model(self.out).state_dict(), step)
                if is_main_process():
                    print(
                        f"segmodels: extending {self.out} from step {step} to "
                        f"{trainer.total_steps}, with its weights and a new optimizer state",
                        file=sys.stderr,
                    )

    def _last_step(self, trainer: Trainer) -> int:
        assert self.config is not None
        steps = [record["step"] for record in read_log(self.out / LOG_NAME)]
        if steps:
            return int(max(steps))
        return self.config.steps or (self.config.epochs or 0) * trainer.steps_per_epoch


class _Run:
    """A running training: display, logging and saving. Only the main process writes files."""

    def __init__(
        self,
        trainer: Trainer,
        out: Path,
        checkpoint_seconds: float,
        validate_every: int,
        keep: str,
    ) -> None:
        self.trainer, self.out = trainer, out
        self.checkpoint_seconds, self.validate_every = checkpoint_seconds, validate_every
        self.keeps_best = keep == "best"
        start = trainer.config.start
        self.start_training = fetch_record(start) if start else None
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
            _remove_temporary_files(self.out)
            _truncate_log(self.out / LOG_NAME, self.trainer.step)
        config = {
            key: value if isinstance(value, int | float) else str(value)
            for key, value in self.trainer.config.published().items()
        }
        self.trainer.accelerator.init_trackers("segmodels", config)

    def run_steps(self, workers: int, stop_after_steps: int | None) -> bool:
        """Run the remaining steps; return False if interrupted by `stop_after_steps`."""
        trainer = self.trainer
        try:
            while not trainer.is_done:
                for batch in trainer.batches(workers):
                    self.step(batch)
                    if trainer.step == stop_after_steps:
                        self.save_checkpoint()
                        return False
                    if trainer.is_done:
                        break
        except (DataError, WorkerError):  # save the steps so far
            self.save_checkpoint()
            raise
        finally:
            self.bar.close()
        if trainer.step < trainer.total_steps and self.is_main:
            print(
                f"segmodels: stopped early at epoch {trainer.epochs_done}: the best val mean IoU "
                f"was {100 * trainer.best_score:.2f} % at step {trainer.best_step}",
                file=sys.stderr,
            )
        return True

    def step(self, batch: tuple[torch.Tensor, ...]) -> None:
        trainer = self.trainer
        loss = trainer.take_step(*batch)
        self.bar.update()
        self.bar.set_postfix(epoch=trainer.epochs_done, loss=f"{loss:.3f}")
        if trainer.step % trainer.steps_per_epoch == 0:  # before a checkpoint may be saved
            record = trainer.epoch_record(self.validate_every)
            self.log(record)
            if "val_mean_iou" in record:
                self.bar.write(_summary(record), file=sys.stderr)
                if trainer.best_step == trainer.step:
                    self.save_best()
        if time.monotonic() - self.last_save > self.checkpoint_seconds:
            self.save_checkpoint()

    def log(self, record: dict[str, Any]) -> None:
        if self.is_main:
            with open(self.out / LOG_NAME, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            if "val_mean_iou" in record or "final" in record:
                self.draw()
        self.trainer.accelerator.log(_flat(record), step=record["step"])

    def draw(self) -> None:
        evaluation = self.trainer.evaluation
        records = read_log(self.out / LOG_NAME)
        with contextlib.suppress(OSError):  # a full disk must not stop the training
            draw_curves(self.out / CURVES_NAME, records)
            if evaluation is not None:
                title = f"val, after step {self.trainer.step}, % of each class's pixels"
                names, matrix = evaluation.class_names, evaluation.confusion_matrix
                draw_confusion(self.out / CONFUSION_NAME, matrix, names, title)
        self._log_images()

    def _log_images(self) -> None:
        """Send the plots to trackers that support images."""
        paths = [self.out / name for name in (CURVES_NAME, CONFUSION_NAME)]
        for tracker in self.trainer.accelerator.trackers:
            if hasattr(tracker, "log_images"):
                images = {path.stem: _image_batch(path) for path in paths if path.exists()}
                layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images(images, step=self.trainer.step, **layout)

    def save_best(self) -> None:
        if not (self.keeps_best and self.is_main):
            return
        try:
            self._write_network(self.out / BEST_NAME)
        except (OSError, SafetensorError) as error:
            self.bar.write(
                f"segmodels: {self.out / BEST_NAME} could not be written at step "
                f"{self.trainer.step} ({error}); training continues: free some disk space",
                file=sys.stderr,
            )

    def save_checkpoint(self) -> None:
        """Save a checkpoint. If this fails, for example because the disk is full, the previous one
        is kept and training continues."""
        self.last_save = time.monotonic()
        if not self.is_main:
            return
        path = self.out / CHECKPOINT_NAME
        try:
            save_checkpoint(self.trainer, path)
        except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError
            kept = "the previous one is kept" if path.exists() else "there is none yet"
            self.bar.write(
                f"segmodels: {path} could not be written at step {self.trainer.step} ({error}); "
                f"{kept}, and training continues: free some disk space",
                file=sys.stderr,
            )

    def finish(self) -> None:
        trainer, accelerator = self.trainer, self.trainer.accelerator
        self.save_checkpoint()
        trainer.recompute_batch_norms(quiet=not self.is_main)
        record = {"epoch": trainer.epochs_done, "step": trainer.step, "final": True}
        record |= trainer.validate()
        self.log(record)
        if trainer.note_score(record):
            self.save_best()
        accelerator.wait_for_everyone()  # before the process group is closed
        accelerator.end_training()
        if self.is_main:
            try:
                self._write_network(self.out)
                (self.out / CHECKPOINT_NAME).unlink(missing_ok=True)
            except (OSError, SafetensorError) as error:
                raise TrainingError(
                    f"the trained network could not be written to {self.out} ({error}); the "
                    "checkpoint is kept: free some disk space and run the same command again"
                ) from error

    def _write_network(self, folder: Path) -> None:
        trainer = self.trainer
        trainer.result.save_pretrained(folder, dtype=torch.float16)
        write_record(
            folder,
            trainer.config,
            self.start_training,
            trainer.carried_over,
            trainer.held_out,
        )


def read_log(path: Path) -> list[dict[str, Any]]:
    """The valid records in `metrics.jsonl`."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                records.append(record)
    return records


def _is_longer(config: TrainingConfig, finished: TrainingConfig) -> bool:
    """Whether the config has more epochs or steps than a finished training."""
    more_epochs = (config.epochs or 0) > (finished.epochs or 0) and finished.steps is None
    return more_epochs or (config.steps or 0) > (finished.steps or 0)


def _summary(record: dict[str, Any]) -> str:
    return (
        f"epoch {record['epoch']}: loss {record['loss']:.3f}, val loss "
        f"{record.get('val_loss', float('nan')):.3f}, val mean IoU "
        f"{100 * record['val_mean_iou']:.2f} %"
    )


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """Flatten for trackers: {"val_iou": {"sky": 0.5}} becomes {"val_iou/sky": 0.5}."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            flat |= {f"{key}/{name}": number for name, number in value.items()}
        elif not isinstance(value, bool):
            flat[key] = value
    return flat


def _image_batch(path: Path) -> Any:
    """Read an image as (1, H, W, 3) uint8, the format of accelerate's trackers."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))[None]


@contextlib.contextmanager
def _created(folder: Path) -> Iterator[None]:
    """Create the folder if necessary; after an error, delete it if it is new and empty."""
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if not existed:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _remove_temporary_files(out: Path) -> None:
    """Delete the temporary files of an interrupted training, and no other files."""
    for path in out.iterdir():
        if TEMPORARY_FILE.fullmatch(path.name) and path.is_file():
            path.unlink()
        elif TEMPORARY_FOLDER.fullmatch(path.name) and path.is_dir():
            written = (CONFIG_NAME, WEIGHTS_NAME, "preprocessor_config.json", "README.md")
            if all(file.name in written for file in path.iterdir()):
                shutil.rmtree(path)


def _truncate_log(log: Path, step: int) -> None:
    """Remove records after the step that is resumed, and the final record of a training that is
    extended."""
    if log.exists():
        kept = [r for r in read_log(log) if r["step"] <= step and "final" not in r]
        write_text(log, "".join(json.dumps(record) + "\n" for record in kept))
