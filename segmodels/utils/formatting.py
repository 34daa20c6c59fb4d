"""Formatting of numbers."""

import math


def percent(value: float | None) -> str:
    """Format a fraction in percent with two decimals; "-" for None and NaN."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.2f}"
