"""The colours of the classes."""

from collections.abc import Iterator, Sequence

# Conventional colours by class name, so that a class has the same colour in all datasets. Road
# scenes follow Cityscapes, except for colours that are hard to distinguish in an overlay.
COLORS: dict[str, tuple[int, int, int]] = {
    "sky": (70, 130, 180),
    "building": (90, 80, 80),
    "pole": (178, 178, 178),
    "road": (128, 64, 128),
    "pavement": (244, 35, 232),
    "tree": (60, 120, 30),
    "sign": (235, 220, 0),
    "fence": (190, 130, 90),
    "car": (0, 0, 190),
    "pedestrian": (220, 20, 60),
    "bicyclist": (255, 140, 0),
    "grass": (140, 220, 100),
    "cow": (150, 90, 40),
    "sheep": (240, 230, 200),
    "aeroplane": (0, 190, 190),
    "water": (0, 90, 255),
    "face": (255, 190, 160),
    "bicycle": (150, 0, 60),
    "flower": (255, 110, 180),
    "bird": (170, 255, 230),
    "book": (190, 40, 0),
    "chair": (120, 0, 255),
    "cat": (255, 170, 60),
    "dog": (160, 130, 0),
    "body": (255, 60, 0),
    "boat": (0, 60, 90),
    "background": (0, 0, 0),
    "foreground": (255, 255, 255),
}

# For classes without a conventional colour, and for readers who cannot distinguish those colours.
# Found by a maximin search over saturated sRGB colours: any two of the first 12 and black differ by
# a CIEDE2000 of at least 17.6, for normal colour vision and in the simulations of protanopia,
# deuteranopia and tritanopia at full severity of Machado et al. (2009); any two of all 24 by at
# least 8.9. The conventional colours of CamVid's classes differ by as little as 8.4 there (tree and
# pedestrian).
SAFE_COLORS: tuple[tuple[int, int, int], ...] = (
    *((225, 255, 25), (100, 125, 0), (255, 200, 255), (100, 0, 255), (75, 25, 100)),
    *((25, 150, 150), (125, 255, 200), (100, 25, 0), (175, 125, 255), (175, 175, 75)),
    *((0, 100, 75), (225, 50, 125), (200, 150, 200), (150, 50, 150), (75, 200, 150)),
    *((175, 25, 75), (200, 255, 150), (100, 100, 225), (200, 125, 100), (0, 0, 175)),
    *((125, 75, 25), (175, 175, 255), (125, 150, 0), (225, 200, 50)),
)


def is_background(name: str) -> bool:
    """Whether a class stands for the absence of all others; it is transparent in overlays."""
    return name.strip().lower() == "background"


def voc_color(index: int) -> tuple[int, int, int]:
    """Return colour `index` of PASCAL VOC's colour map.

    The bits of the index, lowest first, go to r, g and b in turn and fill each from its highest bit
    down (`VOCdevkit/VOCcode/VOClabelcolormap.m`).

    Returns:
        (r, g, b) in 0..255.

    Examples:
        >>> voc_color(15)
        (192, 128, 128)
    """
    color = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            color[channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
    return color[0], color[1], color[2]


def palette_for(class_names: Sequence[str]) -> list[list[int]]:
    """Choose a colour for each class: that of its name in `COLORS`, ignoring case, else the next
    unused one of `SAFE_COLORS`, or of PASCAL VOC's colour map.

    Args:
        class_names: The classes in the order of their ids.

    Returns:
        [r, g, b] in 0..255 for each class, all different.

    Examples:
        >>> palette_for(["Road", "my class"])
        [[128, 64, 128], [225, 255, 25]]
    """
    names = [name.lower() for name in class_names]
    conventional = [
        None if name in names[:index] else COLORS.get(name) for index, name in enumerate(names)
    ]
    unused = (color for color in _other_colors() if color not in conventional)
    return [list(color or next(unused)) for color in conventional]


def safe_palette(class_names: Sequence[str]) -> list[list[int]]:
    """Choose colours that colour-blind readers can distinguish.

    Args:
        class_names: The classes in the order of their ids.

    Returns:
        [r, g, b] in 0..255 for each class, all different: black for background, `SAFE_COLORS` for
        the first 24 other classes, then colours of PASCAL VOC's colour map.

    Examples:
        >>> safe_palette(["background", "cell"])
        [[0, 0, 0], [225, 255, 25]]
    """
    colors = _other_colors()
    return [[0, 0, 0] if is_background(name) else list(next(colors)) for name in class_names]


def _other_colors() -> Iterator[tuple[int, int, int]]:
    yield from SAFE_COLORS
    yield from (color for color in map(voc_color, range(1, 1024)) if color not in SAFE_COLORS)
