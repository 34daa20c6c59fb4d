"""Export to ONNX, for images of any size, verified with onnxruntime."""

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from segmodels.models.base import SegmentationModel
from segmodels.utils.files import atomic_write
from segmodels.version import __version__

INPUT, OUTPUT = "pixel_values", "logits"
OPSET = 18
TOLERANCE = 1e-4  # of the logits, relative to the largest where that is above 1
ATTEMPTS = 5


class ExportError(RuntimeError):
    """A network cannot be exported, or onnxruntime's logits differ from PyTorch's."""


def export_onnx(model: SegmentationModel, path: Path) -> float:
    """Write a network in evaluation mode to an ONNX file; only a verified file is kept.

    The input `pixel_values` is normalised float32 (batch, in_channels, height, width), the output
    `logits` float32 (batch, num_classes, height, width); batch, height and width are dynamic. The
    metadata holds class_names, palette, image_mean, image_std and working_size as JSON.

    Args:
        model: The network.
        path: The file to write; its folder is created.

    Returns:
        The largest difference of a logit from PyTorch's, see `verify`.

    Raises:
        ModuleNotFoundError: Without the extra "export".
        ExportError: If the logits differ.
    """
    import onnx  # noqa: F401  # fail before any work is done
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401

    path.parent.mkdir(parents=True, exist_ok=True)
    model = copy.deepcopy(model).float().cpu().eval()
    pixels = torch.cat([_random_pixels(model, *_odd_sizes(model)[0])] * 2)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            model,
            (pixels,),
            dynamo=True,
            dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise ExportError(f"torch {torch.__version__} exported nothing; use another version")
    entries = {"architecture": type(model).__name__, "segmodels": __version__}
    for name in ("class_names", "palette", "image_mean", "image_std", "working_size"):
        entries[name] = json.dumps(getattr(model, name))
    program.model.metadata_props.update(entries)
    with atomic_write(path) as scratch:
        program.save(scratch)
        return verify(scratch, model)


def verify(path: Path, model: SegmentationModel) -> float:
    """Compare onnxruntime's logits with PyTorch's on random images of three odd sizes.

    SegNet unpools to the position of the maximum. Where two values of a window are equal up to
    rounding, two correct programs may choose differently and then differ visibly around it. That is
    rare and affects some images only, whereas an error affects all: of each size, the best of up to
    5 images counts.

    Args:
        path: The ONNX file.
        model: The network, in float32 on the CPU.

    Returns:
        The largest difference, relative to the largest logit if that is above 1.

    Raises:
        ExportError: If it is above 1e-4.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = 0.0
    for height, width in _odd_sizes(model):
        best = float("inf")
        for seed in range(ATTEMPTS):
            pixels = _random_pixels(model, height, width, seed)
            with torch.no_grad():
                expected = model(pixels)
            logits = torch.from_numpy(session.run([OUTPUT], {INPUT: pixels.numpy()})[0])
            if logits.shape == expected.shape:
                scale = max(1.0, expected.abs().max().item())
                best = min(best, (logits - expected).abs().max().item() / scale)
            if best <= TOLERANCE:
                break
        else:
            raise ExportError(
                f"onnxruntime's logits differ from PyTorch's by {best:.2g} on images of "
                f"{height} x {width} pixels, more than {TOLERANCE:g}: nothing was written"
            )
        worst = max(worst, best)
    return worst


def _random_pixels(
    model: SegmentationModel, height: int, width: int, seed: int = 0
) -> torch.Tensor:
    """(1, in_channels, height, width): an image of noise, normalised."""
    image = torch.rand(
        model.in_channels, height, width, generator=torch.Generator().manual_seed(seed)
    )
    mean, std = torch.tensor(model.image_mean), torch.tensor(model.image_std)
    return ((image - mean[:, None, None]) / std[:, None, None])[None]


def _odd_sizes(model: SegmentationModel) -> list[tuple[int, int]]:
    """Small heights and widths that no pooling halves evenly."""
    if getattr(model, "padding", "same") == "valid":
        return [(201, 229), (213, 197), (189, 245)]
    return [(67, 45), (33, 95), (7, 51)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's warnings, logs and output."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
