import numpy as np
from PIL import Image

from segmodels.utils.contact_sheet import SheetStyle, Tile, contact_sheet, draw_legend, font

STYLE = SheetStyle()


def noise(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def at(sheet, left, top, image):
    return np.array(sheet)[top : top + image.height, left : left + image.width]


def test_tiles_are_pasted_unchanged_in_rows_and_columns():
    images = [noise(40, 90, 0), noise(30, 60, 1), noise(20, 90, 2)]
    rows = [[Tile(images[0], "a"), Tile(images[1])], [Tile(images[2])]]
    sheet = contact_sheet(rows)
    first, second = STYLE.margin, STYLE.margin + 90 + STYLE.gap
    top = STYLE.margin + STYLE.label_height
    np.testing.assert_array_equal(at(sheet, first, top, images[0]), np.array(images[0]))
    np.testing.assert_array_equal(at(sheet, second, top, images[1]), np.array(images[1]))
    lower = top + 40 + STYLE.gap + STYLE.label_height  # under the highest of the row above
    np.testing.assert_array_equal(at(sheet, first, lower, images[2]), np.array(images[2]))
    assert sheet.width == 2 * STYLE.margin + 2 * 90 + STYLE.gap
    assert sheet.height == lower + 20 + STYLE.gap + STYLE.margin


def test_title_footer_and_legend_have_lines_of_their_own():
    tile = [[Tile(noise(20, 200))]]
    plain = contact_sheet(tile)
    titled = contact_sheet(tile, title="Title", title_note="note")
    assert titled.height == plain.height + STYLE.title_height
    signed = contact_sheet(tile, footer="by a test")
    assert signed.height == plain.height + STYLE.label_height
    assert (np.array(signed)[-STYLE.margin - STYLE.label_height :] < 128).any()
    with_legend = contact_sheet(tile, legend=[("road", [1, 2, 3])])
    assert with_legend.height == plain.height + STYLE.label_size + STYLE.gap


def test_a_long_title_does_not_run_into_the_next_tile():
    tiles = [Tile(noise(20, 80), "a file name much longer than the tile.png"), Tile(noise(20, 80))]
    sheet = np.array(contact_sheet([tiles]))
    beside = sheet[STYLE.margin : STYLE.margin + STYLE.label_height, STYLE.margin + 80 :]
    assert (beside == 255).all()
    assert (sheet[STYLE.margin : STYLE.margin + STYLE.label_height] < 128).any()


def test_the_legend_breaks_into_lines_and_shows_the_colors():
    entries = [(f"class {number}", [10 * number, 200, 50]) for number in range(9)]
    legend = draw_legend(entries, 300, STYLE)
    pixels = np.array(legend).reshape(-1, 3)
    for _, color in entries:
        assert (pixels == color).all(1).sum() > STYLE.label_size**2 / 2
    assert legend.width == 300
    assert legend.height > STYLE.label_size + STYLE.gap
    assert draw_legend([], 300, STYLE).height == 0


def test_sizes_follow_the_style():
    large = SheetStyle(margin=32, gap=20, title_size=40, label_size=26, small_size=22)
    sheet = contact_sheet([[Tile(noise(20, 90))]], title="x", style=large)
    assert sheet.size == (90 + 64, 64 + 60 + 46 + 20 + 20)
    assert font(40) is font(40)
