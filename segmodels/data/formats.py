"""Decoders for files that Pillow alone does not decode correctly.

These are TIFFs of more than 8 bits or with unusual channels, deep PNGs and PPMs, JPEG 2000 with
other colour spaces than sRGB, and AVIF images with a crop.
"""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from segmodels.data import _boxes, _tiff
from segmodels.data._untrusted_images import PictureError
from segmodels.data.color import copy_profile, to_rgb
from segmodels.data.depth import scale_to_uint8, with_depth
from segmodels.data.orientation import exif_orientation, make_upright


def decode_special(image: Image.Image, name: str, max_pixels: int) -> Image.Image | None:
    """Decode an image that Pillow alone would get wrong.

    Args:
        image: Opened from a file that is still open, and not loaded yet.
        name: For messages.
        max_pixels: Limit for the number of pixels, which also limits the memory.

    Returns:
        Upright RGB, or None if Pillow's own decoder is correct. The image may have been loaded.

    Raises:
        PictureError: If the colours of the file are not supported.
        Exception: Of any type, from Pillow, for a damaged file.
    """
    if isinstance(image, TiffImageFile) and _tiff.needs_sample_decoding(image):
        return _decode_tiff(image, name, max_pixels)
    if isinstance(image, PngImageFile):
        return _decode_deep_png(image, name)
    if isinstance(image, Jpeg2KImageFile):
        return _decode_jp2(image, name)
    if not isinstance(image, ImageFile.ImageFile):
        return None
    if image.format == "PPM":
        return _decode_deep_ppm(image, name)
    if image.format == "AVIF":
        return _decode_cropped_avif(image, name)
    return None


# ---- TIFF, PNG, PPM ----


def _decode_tiff(image: TiffImageFile, name: str, max_pixels: int) -> Image.Image:
    tags = image.tag_v2
    photometric = tags.get(_tiff.PHOTOMETRIC, 0)
    if photometric not in _tiff.COLORS:
        raise _tiff.TiffError(f"unsupported photometric interpretation {photometric}")
    samples = _tiff.read_samples(image, max_pixels)
    colors = _tiff.COLORS[photometric]
    extra = tags.get(_tiff.EXTRA_SAMPLES, ())
    count = samples.shape[2]
    if (
        count < colors
        or (colors == 1 and count - colors > max(1, len(extra)))
        or (colors == 1 and count > 2 and photometric != _tiff.PALETTE)
    ):
        raise PictureError(
            f"{name} has {count} channels that are not declared as colours; expected greyscale or "
            f"RGB (a network with {count} input channels accepts them: --in-channels {count})"
        )
    alpha = extra[0] if extra else (2 if photometric == _tiff.RGB and count == 4 else 0)
    depth = None
    if photometric == _tiff.PALETTE:
        pixels = _tiff.palette_of(image)[samples[..., 0].astype(np.intp)]
        alphas = samples[..., 1:2]
    else:
        scaled, depth = scale_to_uint8(samples, _tiff.declared_white(image), name, colors)
        pixels, alphas = scaled[..., :colors], scaled[..., colors : colors + 1]
        if photometric == _tiff.WHITE_IS_ZERO:
            pixels = 255 - pixels
    if alpha in (1, 2, 999) and alphas.shape[2] and samples.dtype.kind == "u":
        if samples.dtype.itemsize > 1:  # opaque is the largest value of the type
            full = float(np.iinfo(samples.dtype).max)
            stored = samples[..., colors] if photometric != _tiff.PALETTE else samples[..., 1]
            alphas = (255 / full * stored + 0.5).astype(np.uint8)[..., None]
        pixels = np.concatenate([pixels, alphas], axis=2)
    decoded = _to_image(pixels, premultiplied=alpha == 1)
    copy_profile(image, decoded)
    result = make_upright(to_rgb(decoded, name), _tiff.orientation_of(image))
    return with_depth(result, depth)


def _to_image(array: NDArray[np.uint8], premultiplied: bool) -> Image.Image:
    """Convert (H, W, C) to an image of mode L, LA, RGB, RGBA or CMYK."""
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA", 5: "CMYK"}[array.shape[2]]
    if mode == "LA" and premultiplied:
        array, mode = np.repeat(array, [3, 1], axis=2), "RGBA"
    if mode == "RGBA" and premultiplied:
        mode = "RGBa"
    size = array.shape[1], array.shape[0]
    image = Image.frombytes(mode, size, np.ascontiguousarray(array).tobytes())
    return image.convert("RGBA") if mode == "RGBa" else image


def _decode_deep_png(image: PngImageFile, name: str) -> Image.Image | None:
    """Decode 16-bit colours whose depth is less than 16 bits.

    Pillow keeps only the high byte of 16-bit colours. If all high bytes are small, the low bytes
    are needed for the depth; Pillow returns them when told the opposite byte order.
    """
    if not (image.tile and image.tile[0][3] in ("RGB;16B", "RGBA;16B", "LA;16B")):
        return None
    rawmode = str(image.tile[0][3])
    file = image.fp
    assert file is not None
    image.load()
    colors = 3
    high = np.array(image)
    if high[..., :colors].max() >= 64:  # 64 * 256 exceeds 14 bits: the depth is 16 bits
        return None
    file.seek(0)
    second_read = PngImageFile(file, "")
    if rawmode == "LA;16B":
        second_read._mode, other = "I", "I;32B"
    else:
        other = rawmode[:-1] + "L"
    second_read.tile = [tile._replace(args=other) for tile in second_read.tile]
    second_read.load()
    low = np.array(second_read)
    if rawmode == "LA;16B":
        pairs = low.view(np.uint32)
        values = np.stack([pairs >> 16] * 3 + [pairs & 0xFFFF], axis=2).astype(np.uint16)
    else:
        values = high.astype(np.uint16) << 8 | low
    scaled, depth = scale_to_uint8(values, None, name, colors)
    if values.shape[2] == 4:
        scaled[..., 3] = values[..., 3] >> 8
    elif isinstance(transparent := image.info.get("transparency"), tuple):
        alpha = np.where((values == transparent).all(axis=2), 0, 255).astype(np.uint8)
        scaled = np.dstack([scaled, alpha])
    decoded = _to_image(scaled, premultiplied=False)
    copy_profile(image, decoded)
    result = make_upright(to_rgb(decoded, name), exif_orientation(image))
    return with_depth(result, depth)


def _decode_deep_ppm(image: ImageFile.ImageFile, name: str) -> Image.Image | None:
    """Decode binary PPMs and PGMs of more than 8 bits.

    Of 16-bit colours, Pillow keeps only the high byte. Greyscale has been scaled by the maximum
    value in the header.
    """
    decoder, _, offset, args = image.tile[0]
    if not isinstance(args, tuple) or len(args) < 2 or args[0] not in ("RGB", "L"):
        return None
    if args[0] == "L" and args[1] > 255:
        image.load()
        grey = np.asarray(image)
        return Image.fromarray((grey / 257 + 0.5).astype(np.uint8)).convert("RGB")
    if args[0] == "RGB" and args[1] == 65535 and decoder == "ppm":
        file = image.fp
        assert file is not None
        file.seek(offset)
        size = image.width * image.height * 6
        content = file.read(size)
        if len(content) < size:
            raise OSError("image file is truncated")
        values = np.frombuffer(content, ">u2").reshape(image.height, image.width, 3)
        scaled, depth = scale_to_uint8(values.astype(np.uint16), None, name)
        return with_depth(Image.fromarray(scaled), depth)
    return None


# ---- JPEG 2000, AVIF ----


def _read_all(image: ImageFile.ImageFile) -> bytes:
    """Read the image's file, keeping its position."""
    file = image.fp
    assert file is not None
    position = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(position)
    return content


def _decode_jp2(image: Jpeg2KImageFile, name: str) -> Image.Image | None:
    """Decode JP2 files: YCC colours, reordered channels and ICC profiles, which Pillow ignores."""
    content = _read_all(image)
    color = _boxes.jp2_color(content)
    if color is None:
        return None
    if color.space is not None and color.space not in _boxes.SUPPORTED_SPACES:
        raise PictureError(
            f"{name} uses the JPEG 2000 colour space {color.space}, which is not supported; save "
            "it in sRGB"
        )
    if color.space == _boxes.SYCC or color.channels:
        start, end = color.codestream
        image = Jpeg2KImageFile(BytesIO(content[start:end]), "")
        image.load()
        return to_rgb(_merge_channels(image.split(), color), name)
    image.load()
    if image.mode.startswith("I") and color.depth is not None and color.depth < 16:
        # Pillow has shifted the values to 16 bits.
        values = np.asarray(image).astype(np.float32) / (65535 - (1 << (16 - color.depth)) + 1)
        return to_rgb(Image.fromarray((255 * values.clip(0, 1) + 0.5).astype(np.uint8)), name)
    if color.profile and "icc_profile" not in image.info:
        image.info["icc_profile"] = color.profile
    return to_rgb(image, name)


def _merge_channels(components: tuple[Image.Image, ...], color: _boxes.Jp2Color) -> Image.Image:
    """Assign the components of a JPEG 2000 codestream to the colour channels and alpha."""
    order = color.channels or tuple(range(len(components)))
    if len(order) > len(components) or max(order) >= len(components):
        raise ValueError("its channel definitions (cdef) refer to missing channels")
    colors = len(order) - color.has_alpha
    if color.space == _boxes.SYCC and colors != 3:
        raise ValueError(f"YCC with {colors} colour channels; expected 3")
    mode = "YCbCr" if color.space == _boxes.SYCC else {1: "L", 3: "RGB", 4: "CMYK"}[colors]
    if colors == 1:
        merged = components[order[0]]
    else:
        merged = Image.merge(mode, [components[i] for i in order[:colors]])
    if color.has_alpha:
        merged = merged.convert("RGB")
        merged.putalpha(components[order[-1]])
    return merged


def _decode_cropped_avif(image: ImageFile.ImageFile, name: str) -> Image.Image | None:
    """Decode AVIF images with a crop (clean aperture), which Pillow ignores."""
    content = _read_all(image)
    box = _boxes.clean_aperture(content, *image.size)
    if box is None:
        return None
    image.load()
    cropped = image.crop(box)
    cropped.info.update(image.info)
    orientation = exif_orientation(image)
    cropped.info.pop("exif", None)
    return make_upright(to_rgb(cropped, name), orientation)
