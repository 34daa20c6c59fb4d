"""Formatting of numbers and counts."""

import math


def percent(value: float | None) -> str:
    """Format a fraction in percent with two decimals; "-" for None and NaN."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.2f}"


def count_of(number: int, noun: str) -> str:
    """Format a number of things: "1 file", "3 files"."""
    return f"{number} {noun}" + "s" * (number != 1)
