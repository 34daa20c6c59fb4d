"""Reading of files, PIL images and arrays as RGB, and what is rejected."""

import warnings

import numpy as np
import pytest
from PIL import ExifTags, Image

from segmodels.data.image_io import PictureError, inspect_image, read_image_array

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def saved(image, tmp_path, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


# ---- what is read ----


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp", "tga", "jp2"])
def test_a_lossless_file_is_read_exactly(scene, tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(Image.fromarray(scene), tmp_path, f"scene.{suffix}", **options)
    np.testing.assert_array_equal(read_image_array(path), scene)
    np.testing.assert_array_equal(read_image_array(str(path)), scene)


def test_a_jpeg_is_read_in_colour(tmp_path):
    path = saved(Image.new("RGB", (16, 8), RED), tmp_path, "red.jpg", quality=95)
    picture = read_image_array(path)
    assert picture.shape == (8, 16, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_allclose(picture, np.broadcast_to(RED, picture.shape), atol=3)


def test_arrays_are_read(scene):
    np.testing.assert_array_equal(read_image_array(scene), scene)
    np.testing.assert_array_equal(read_image_array(scene[..., 0]), scene[..., :1].repeat(3, 2))
    np.testing.assert_array_equal(read_image_array(scene[:, ::-1]), scene[:, ::-1])
    alpha = np.uint8([[255] * 5, [0] * 5, [51] * 5])  # whole, none, a fifth
    expected = scene.astype(float)
    expected[1], expected[2] = 255, 0.2 * scene[2] + 0.8 * 255
    np.testing.assert_allclose(read_image_array(np.dstack([scene, alpha])), expected, atol=1)


def test_the_result_is_a_copy(scene):
    assert not np.shares_memory(read_image_array(scene), scene)


# ---- animations, and images that belong to the caller ----


def frames():
    return [Image.new("RGB", (4, 3), color) for color in (RED, GREEN, BLUE)]


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.gif", {}), ("a.webp", {"lossless": True}), ("a.tif", {}), ("a.png", {})],
)
def test_of_several_frames_the_first_is_read(tmp_path, name, options):
    first, *rest = frames()
    path = saved(first, tmp_path, name, save_all=True, append_images=rest, **options)
    assert (read_image_array(path) == RED).all()
    with Image.open(path) as image:
        image.seek(2)
        assert (read_image_array(image) == RED).all()
        assert image.tell() == 2
        assert image.convert("RGB").getpixel((0, 0)) == BLUE


def test_an_image_handed_in_is_neither_changed_nor_closed(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = saved(Image.new("RGBA", (4, 3), (9, 9, 9, 9)), tmp_path, "a.png", exif=exif)
    with Image.open(path) as image:
        before = image.copy()
        assert read_image_array(image).shape == (4, 3, 3)
        assert (image.size, image.mode) == ((4, 3), "RGBA")
        assert image.getexif()[ExifTags.Base.Orientation] == 6
        assert image.tobytes() == before.tobytes()


def test_a_file_is_closed_again(scene, tmp_path):
    path = saved(Image.fromarray(scene), tmp_path, "a.gif", save_all=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        read_image_array(path)
    path.unlink()


# ---- what is refused ----


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2), np.float32), "array of float32; expected uint8"),
        (np.zeros((2, 2), bool), "array of bool; expected uint8"),
        (np.zeros((2, 2), np.uint16), "array of uint16; expected uint8"),
        (np.zeros(4, np.uint8), r"shape \(4,\); expected \(H, W\), \(H, W, 3\) or \(H, W, 4\)"),
        (np.zeros((2, 2, 2), np.uint8), r"shape \(2, 2, 2\); expected"),
        (np.zeros((1, 2, 2, 3), np.uint8), r"shape \(1, 2, 2, 3\); expected"),
        (np.zeros((0, 2, 3), np.uint8), r"shape \(0, 2, 3\), which has no pixels"),
        (None, "got NoneType; expected an image file"),
        ([[0, 1], [1, 0]], "got list; expected an image file"),
    ],
)
def test_what_is_no_picture_is_refused(array, message):
    with pytest.raises(PictureError, match=message):
        read_image_array(array)


def test_an_image_that_was_closed_is_refused(scene, tmp_path):
    with Image.open(saved(Image.fromarray(scene), tmp_path, "a.png")) as image:
        pass
    with pytest.raises(PictureError, match="the image is damaged, truncated"):
        read_image_array(image)


def test_max_pixels_holds_for_arrays_and_images_too(scene):
    assert read_image_array(scene, max_pixels=15).shape == scene.shape
    for picture in (scene, Image.fromarray(scene)):
        with pytest.raises(PictureError, match=r"5 x 3 = .* scale it down first"):
            read_image_array(picture, max_pixels=14)


# ---- properties ----


def test_what_an_image_holds(tmp_path):
    Image.fromarray(np.array([[3, 200, 200]], np.uint8)).save(tmp_path / "a.png")
    depth = inspect_image(tmp_path / "a.png")[1].depth
    assert (depth.kind, depth.smallest, depth.largest, depth.levels) == (
        *("8-bit integers", 3, 200, 2),
    )
    Image.fromarray(np.array([[0, 5, 4095]], np.uint16)).save(tmp_path / "a.png")
    depth = inspect_image(tmp_path / "a.png")[1].depth
    assert (depth.kind, depth.smallest, depth.largest, depth.levels, depth.white) == (
        *("16-bit integers", 0, 4095, 3, 4095),
    )
