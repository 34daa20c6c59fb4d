"""The comparison as one picture, to share: the picture, each network's overlay, and the legend."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from segmodels.demo import strings
from segmodels.inference.comparison import ModelResult, agreement, comparable
from segmodels.inference.results import LabeledImage

WIDTH = 1600
MARGIN = 32
GAP = 20
TITLE_SIZE, LABEL_SIZE, SMALL_SIZE = 40, 26, 22
INK, PALE, PAPER = (24, 24, 27), (95, 95, 105), (255, 255, 255)
PANORAMA = 2.4  # of width to height, from which on the panels lie below each other


def comparison_picture(results: Sequence[ModelResult], opacity: float = 0.6) -> Image.Image:
    """RGB, WIDTH pixels wide. `results` are of one picture, at least one."""
    first = results[0].segmentation
    tiles = [("Picture", "", first.image)]
    for result in results:
        caption = f"{result.seconds:.2f} s"
        tiles.append((result.network.title, caption, result.segmentation.overlay(opacity)))
    columns = columns_for(first, len(tiles))
    width = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) // columns
    tiles = [(title, caption, fitted(image, width)) for title, caption, image in tiles]
    row_height = tiles[0][2].height + LABEL_SIZE + 2 * GAP
    top = MARGIN + 2 * TITLE_SIZE
    rows = -(-len(tiles) // columns)
    legend = legend_lines([result.segmentation for result in results])
    legend_top = top + rows * row_height
    height = legend_top + len(legend) * (LABEL_SIZE + GAP) + MARGIN
    page = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(page)
    _draw_title(draw, results)
    for number, (title, caption, image) in enumerate(tiles):
        left = MARGIN + number % columns * (width + GAP)
        upper = top + number // columns * row_height
        draw.text((left, upper), title, INK, font(LABEL_SIZE))
        draw.text((left + width, upper), caption, PALE, font(SMALL_SIZE), anchor="ra")
        page.paste(image, (left, upper + LABEL_SIZE + GAP // 2))
    for number, line in enumerate(legend):
        _draw_legend_line(draw, line, legend_top + number * (LABEL_SIZE + GAP))
    return page


def columns_for(segmentation: LabeledImage, count: int) -> int:
    """Upright pictures side by side, wide ones in two columns, panoramas in one."""
    height, width = segmentation.class_map.shape
    if width >= PANORAMA * height:
        return 1
    return min(count, 2 if width > height else 4)


def fitted(image: Image.Image, width: int) -> Image.Image:
    """The image at `width` pixels, at most four times as high."""
    height = min(4 * width, max(1, round(image.height * width / image.width)))
    return image.resize((width, height), Image.Resampling.LANCZOS)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _draw_title(draw: ImageDraw.ImageDraw, results: Sequence[ModelResult]) -> None:
    titles = [result.network.title for result in results]
    title = titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"
    draw.text((MARGIN, MARGIN), title, INK, font(TITLE_SIZE))
    if len(results) > 1:
        same = strings.agreement(agreement(comparable(results)))
        draw.text((WIDTH - MARGIN, MARGIN + 12), same, PALE, font(LABEL_SIZE), anchor="ra")


Entry = tuple[str, tuple[int, ...], int]  # name, colour, left edge


def legend_lines(segmentations: Sequence[LabeledImage]) -> list[list[Entry]]:
    """The classes that any of them has, the largest first, broken into lines."""
    areas: dict[tuple[str, tuple[int, ...]], float] = {}
    for segmentation in segmentations:
        colors = dict(zip(segmentation.class_names, segmentation.palette, strict=True))
        for name, share in segmentation.areas().items():
            if share:
                key = (name, tuple(colors[name]))
                areas[key] = areas.get(key, 0.0) + share
    lines: list[list[Entry]] = [[]]
    left = MARGIN
    for name, color in sorted(areas, key=lambda key: -areas[key]):
        width = LABEL_SIZE + 10 + round(font(SMALL_SIZE).getlength(name)) + 2 * GAP
        if left + width > WIDTH - MARGIN and lines[-1]:
            lines.append([])
            left = MARGIN
        lines[-1].append((name, color, left))
        left += width
    return lines


def _draw_legend_line(draw: ImageDraw.ImageDraw, line: Sequence[Entry], top: int) -> None:
    for name, color, left in line:
        box = (left, top, left + LABEL_SIZE, top + LABEL_SIZE)
        draw.rounded_rectangle(box, 5, tuple(color), outline=PALE)
        draw.text((left + LABEL_SIZE + 10, top), name, INK, font(SMALL_SIZE))
