"""Class colors that remain distinct to color-blind readers."""

from collections.abc import Sequence

from segmodels.utils.palette import is_background, voc_color

# Found by a maximin search over sRGB: any two of the first 11 differ by a CIEDE2000 of 19.8 or more
# to normal sight and in Machado et al.'s (2009) simulations of protanopia, deuteranopia and
# tritanopia at full severity; any two of all 24 by 9.5. The customary colors of CamVid's classes
# differ by as little as 8.4 there (tree and pedestrian).
SAFE_COLORS = (
    *((73, 146, 146), (36, 73, 73), (146, 255, 219), (109, 0, 182), (182, 73, 255), (109, 109, 0)),
    *((219, 255, 0), (219, 182, 255), (0, 0, 73), (73, 36, 0), (219, 146, 109), (255, 36, 146)),
    *((73, 109, 109), (219, 219, 146), (146, 146, 0), (146, 182, 182), (0, 36, 36), (109, 73, 36)),
    *((182, 182, 0), (146, 146, 219), (73, 73, 109), (146, 73, 182), (0, 0, 255), (36, 36, 109)),
)


def safe_palette(class_names: Sequence[str]) -> list[list[int]]:
    """[r, g, b] in 0..255 for each class, black for a background. Beyond the 24 colors that are
    safe, those of PASCAL VOC's color map follow."""
    colors = iter([*SAFE_COLORS, *map(voc_color, range(1, 1024))])
    return [[0, 0, 0] if is_background(name) else list(next(colors)) for name in class_names]
