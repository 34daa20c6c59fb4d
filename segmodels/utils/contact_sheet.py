"""Contact sheets: rows of captioned images with a title and a legend of classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
LegendEntry = tuple[str, Sequence[int]]  # class name, [r, g, b]


@dataclass(frozen=True)
class Tile:
    """An image on the sheet.

    Attributes:
        image: The image, drawn at its original size.
        title: Text above the image, on the left.
        note: Text above the image, on the right.
    """

    image: Image.Image
    title: str = ""
    note: str = ""


@dataclass(frozen=True)
class SheetStyle:
    """Colours of a sheet and sizes in pixels; the defaults suit small sheets.

    Attributes:
        margin: Outer margin.
        gap: Space between tiles.
        title_size: Font size of the sheet's title.
        label_size: Font size of the tiles' titles, and size of the squares in the legend.
        small_size: Font size of notes and class names.
    """

    margin: int = 8
    gap: int = 8
    title_size: int = 18
    label_size: int = 14
    small_size: int = 14
    ink: Color = (24, 24, 27)
    pale: Color = (95, 95, 105)
    paper: Color = (255, 255, 255)

    @property
    def label_height(self) -> int:
        """Height of a line of text above a tile."""
        return self.label_size + self.gap

    @property
    def title_height(self) -> int:
        """Height of the sheet's title."""
        return self.title_size + self.gap


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font included in Pillow, which is available on every machine."""
    return ImageFont.load_default(size)


def contact_sheet(
    rows: Sequence[Sequence[Tile]],
    *,
    legend: Sequence[LegendEntry] = (),
    title: str = "",
    title_note: str = "",
    footer: str = "",
    style: SheetStyle | None = None,
) -> Image.Image:
    """Draw rows of tiles; all columns are as wide as the widest tile.

    Args:
        rows: At least one row with at least one tile each.
        legend: Names and colours, drawn below the tiles in as many lines as needed.
        title: Text above the tiles, on the left.
        title_note: Text above the tiles, on the right.
        footer: The last line of the sheet.
        style: Sizes and colours.

    Returns:
        An RGB image.
    """
    style = style or SheetStyle()
    cell = max(tile.image.width for row in rows for tile in row)
    columns = max(map(len, rows))
    width = 2 * style.margin + columns * (cell + style.gap) - style.gap
    heights = [
        style.label_height + max(tile.image.height for tile in row) + style.gap for row in rows
    ]
    key = draw_legend(legend, width - 2 * style.margin, style)
    head = style.title_height if title or title_note else 0
    foot = style.label_height if footer else 0
    height = 2 * style.margin + head + sum(heights) + key.height + foot
    sheet = Image.new("RGB", (width, height), style.paper)
    draw = ImageDraw.Draw(sheet)
    top = style.margin
    draw.text((style.margin, top), title, style.ink, font(style.title_size))
    right = (width - style.margin, top + (style.title_size - style.label_size) // 2)
    draw.text(right, title_note, style.pale, font(style.label_size), anchor="ra")
    top += head
    for row, row_height in zip(rows, heights, strict=True):
        for number, tile in enumerate(row):
            left = style.margin + number * (cell + style.gap)
            room = cell - font(style.small_size).getlength(tile.note)
            caption = _shortened(tile.title, room, style.label_size)
            draw.text((left, top), caption, style.ink, font(style.label_size))
            draw.text(
                (left + cell, top), tile.note, style.pale, font(style.small_size), anchor="ra"
            )
            sheet.paste(tile.image, (left, top + style.label_height))
        top += row_height
    sheet.paste(key, (style.margin, top))
    draw.text((style.margin, top + key.height), footer, style.ink, font(style.small_size))
    return sheet


def _shortened(text: str, width: float, size: int) -> str:
    """Truncate the text with an ellipsis if it is wider than `width` pixels."""
    whole = text
    while text and font(size).getlength(text if text == whole else f"{text}...") > width:
        text = text[:-1]
    return text if text == whole else f"{text}..."


def draw_legend(entries: Sequence[LegendEntry], width: int, style: SheetStyle) -> Image.Image:
    """Draw a square and a name for each entry, in lines of at most `width` pixels.

    Returns:
        An RGB image; its height is 0 without entries.
    """
    square, small = style.label_size, font(style.small_size)
    line_height = style.label_size + style.gap
    places, x, y = [], 0, 0
    for name, _ in entries:
        needed = square + style.gap + round(small.getlength(name)) + 2 * style.gap
        if x and x + needed > width:
            x, y = 0, y + line_height
        places.append((x, y))
        x += needed
    legend = Image.new("RGB", (width, y + line_height if entries else 0), style.paper)
    draw = ImageDraw.Draw(legend)
    for (name, color), (left, top) in zip(entries, places, strict=True):
        box = (left, top, left + square, top + square)
        draw.rectangle(box, fill=tuple(color), outline=style.pale)
        middle = top + square / 2
        draw.text((left + square + style.gap, middle), name, style.ink, small, anchor="lm")
    return legend
