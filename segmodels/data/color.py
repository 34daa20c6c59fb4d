"""Conversion of loaded images to upright 8-bit sRGB: colour profiles, transparency, bit depth."""

from io import BytesIO

from PIL import Image, ImageChops, ImageCms

from segmodels.data.depth import grey_to_uint8, with_depth
from segmodels.data.orientation import exif_orientation, make_upright


def to_rgb(
    image: Image.Image, name: str, frame: tuple[int, int, int, int] | None = None
) -> Image.Image:
    """Convert a loaded image of any mode to upright sRGB, composited over white.

    Args:
        image: The image, after `load`.
        name: For messages.
        frame: (left, top, right, bottom) of the canvas that the frame covers; the rest of the
            canvas is transparent. None: all of it.

    Returns:
        Mode RGB, with the depth and orientation in `info` where they were applied.

    Raises:
        PictureError: If the range of the values is not supported.
    """
    orientation = exif_orientation(image)  # 1 for TIFFs, where `load` has applied it
    depth = None
    if image.mode.startswith(("I", "F")):
        grey, depth = grey_to_uint8(image, name)
        copy_profile(image, grey)
        image = grey
    elif image.mode == "1" and image.format in ("XBM", "PSD"):  # in these, set bits are black
        image = ImageChops.invert(image.convert("L"))
    image = to_srgb(image)
    if image.mode == "La":  # Pillow converts it to LA only
        image = image.convert("LA")
    if frame is not None and tuple(frame) != (0, 0, *image.size):
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size)
        canvas.paste(image.crop(frame), frame[:2])
        image = canvas
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return with_depth(make_upright(image, orientation), depth)


def copy_profile(source: Image.Image, target: Image.Image) -> None:
    """Give an image the embedded colour profile of another one, if that has any."""
    if "icc_profile" in source.info:
        target.info["icc_profile"] = source.info["icc_profile"]


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert to sRGB with the embedded colour profile; LAB images need none.

    Images without a profile, or with one that cannot be used, are returned unchanged.
    """
    profile = image.info.get("icc_profile")
    if image.mode == "LAB":
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    elif not profile:
        return image
    else:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            if "srgb" in ImageCms.getProfileDescription(source).lower():
                return image
        except (OSError, ImageCms.PyCMSError):
            return image
    if image.mode in ("P", "PA", "LA") or "transparency" in image.info:
        image = image.convert("RGBA")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        return ImageCms.profileToProfile(image, source, srgb, outputMode=mode) or image
    except ImageCms.PyCMSError:  # the profile is for another number of channels
        return image
