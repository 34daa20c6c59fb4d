"""Export to ONNX with dynamic image sizes, verified with onnxruntime."""

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
# Attributes of the network that are the file's metadata, as JSON.
METADATA = ("class_names", "palette", "image_mean", "image_std", "working_size", "minimum_size")
OPSET = 18
TOLERANCE = 1e-4  # for logits, relative to the largest if that is above 1
ATTEMPTS = 5  # random images per size


class ExportError(RuntimeError):
    """A network cannot be exported, or onnxruntime's logits differ from PyTorch's."""


def export_onnx(model: SegmentationModel, path: Path) -> float:
    """Export a network in evaluation mode to an ONNX file, which is kept only if it is correct.

    The input `pixel_values` is normalised float32 (batch, in_channels, height, width), the output
    `logits` is float32 (batch, num_classes, height, width); batch, height and width are dynamic.
    The metadata contains class_names, palette, image_mean, image_std, working_size and minimum_size
    as JSON.

    Args:
        model: The network.
        path: The file to write; its folder is created if necessary.

    Returns:
        The largest difference from PyTorch's logits, see `verify`.

    Raises:
        ModuleNotFoundError: If the extra "export" is not installed.
        ExportError: If the network cannot be exported, or the logits differ.
    """
    import onnx  # noqa: F401  # fail early if it is not installed
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
        raise ExportError(
            f"torch {torch.__version__} did not export the network; use another version"
        )
    entries = {"architecture": type(model).__name__, "segmodels": __version__}
    for name in METADATA:
        entries[name] = json.dumps(getattr(model, name))
    program.model.metadata_props.update(entries)
    with atomic_write(path) as scratch:
        program.save(scratch)
        return verify(scratch, model)


def verify(path: Path, model: SegmentationModel) -> float:
    """Compare onnxruntime's logits with PyTorch's on random images of three odd sizes.

    SegNet unpools to the positions of the maxima. If two values in a pooling window are equal up to
    rounding, two correct implementations can choose different positions, and the logits around them
    then differ clearly. This is rare and affects only some images, whereas an export error affects
    all of them. Therefore, the best of up to 5 images counts for each size.

    Args:
        path: The ONNX file.
        model: The network, in float32 on the CPU.

    Returns:
        The largest absolute difference, divided by the largest absolute logit if that is above 1.

    Raises:
        ExportError: If it exceeds 1e-4.
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
                f"{height} x {width} pixels (tolerance {TOLERANCE:g}); no file was written"
            )
        worst = max(worst, best)
    return worst


def _random_pixels(
    model: SegmentationModel, height: int, width: int, seed: int = 0
) -> torch.Tensor:
    """(1, in_channels, height, width): normalised uniform noise."""
    image = torch.rand(
        model.in_channels, height, width, generator=torch.Generator().manual_seed(seed)
    )
    mean, std = torch.tensor(model.image_mean), torch.tensor(model.image_std)
    return ((image - mean[:, None, None]) / std[:, None, None])[None]


def _odd_sizes(model: SegmentationModel) -> list[tuple[int, int]]:
    """Small (height, width) pairs with sizes that are odd at some of the poolings."""
    if getattr(model, "padding", "same") == "valid":
        return [(201, 229), (213, 197), (189, 245)]
    return [(67, 45), (33, 95), (7, 51)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's warnings, log messages and output."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
