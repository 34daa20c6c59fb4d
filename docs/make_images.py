"""Generate docs/images with the published networks: `python docs/make_images.py`."""

from pathlib import Path

from PIL import Image

from segmodels import Segmenter, load_model

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
NETWORKS = ("fcn", "unet", "segnet")
SHEETS = ("street", "crossing", "cyclists")  # each with the image and three predictions
STRIP = (0.0, 0.05, 0.62, 0.78)  # of bridge.jpg, as fractions of its sides
GAP = 8  # pixels


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    segmenters = [Segmenter(load_model(ROOT / f"weights_card/{name}-camvid")) for name in NETWORKS]
    bridge = read("bridge")
    width, height = bridge.size
    box = tuple(round(f * side) for f, side in zip(STRIP, (width, height) * 2, strict=True))
    for name, segmenter in zip(NETWORKS, segmenters, strict=True):
        overlay = segmenter(bridge).overlay(opacity=0.6).crop(box)
        resized(overlay, 480).save(IMAGES / f"{name}-bridge.jpg", quality=85)
    for name in SHEETS:
        image = read(name)
        overlays = [segmenter(image).overlay(opacity=0.6) for segmenter in segmenters]
        sheet([image, *overlays]).save(IMAGES / f"{name}.jpg", quality=80)


def read(name: str) -> Image.Image:
    return Image.open(ROOT / "examples" / f"{name}.jpg").convert("RGB")


def resized(image: Image.Image, width: int) -> Image.Image:
    return image.resize((width, round(image.height * width / image.width)))


def sheet(images: list[Image.Image]) -> Image.Image:
    """Arrange four images of the same size in a 2 x 2 grid."""
    panels = [resized(image, 640) for image in images]
    width, height = panels[0].size
    canvas = Image.new("RGB", (2 * width + GAP, 2 * height + GAP), "white")
    for number, panel in enumerate(panels):
        row, column = divmod(number, 2)
        canvas.paste(panel, (column * (width + GAP), row * (height + GAP)))
    return canvas


if __name__ == "__main__":
    main()
