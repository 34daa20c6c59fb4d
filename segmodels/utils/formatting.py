"""Numbers as they are printed."""

import math


def percent(value: float | None) -> str:
    """A fraction in percent with two decimals; "-" for None and NaN."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.2f}"
