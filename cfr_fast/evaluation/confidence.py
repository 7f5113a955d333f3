"""Intervals of means, and when a method counts as clearly better than the mask alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

MARK = "°"
LEGEND = f"{MARK} not clearly above the mask alone"
RULE = "95 % interval of the gain over test images, or deviation over seeds, reaches it"

Interval: TypeAlias = "tuple[float, float]"
Figure: TypeAlias = "tuple[float, Interval | None]"
"""A value and its interval, if it has one."""


def interval_of_mean(seeds: Sequence[Sequence[Figure]]) -> Interval | None:
    """The interval of a mean over seeds of means over categories.

    Categories have test images of their own: the distances from the figures to the ends of their intervals
    add in quadrature (exact for normal distributions) and are divided by the number of categories. Seeds
    share the test images: their distances are averaged, for what one choice of images does to all of them
    does not cancel. Of a single figure it is its own interval.

    Args:
        seeds: for each seed the figures of its categories; NaN values are left out.

    Returns:
        (low, high); None where a figure has no interval, or there is none.
    """
    means, below, above = [], [], []
    for figures in seeds:
        known = [(value, interval) for value, interval in figures if not math.isnan(value)]
        if not known:
            continue
        ends = [(value, *interval) for value, interval in known if interval is not None]
        if len(ends) < len(known):
            return None
        means.append(math.fsum(value for value, _, _ in ends) / len(ends))
        below.append(math.hypot(*(max(value - low, 0.0) for value, low, _ in ends)) / len(ends))
        above.append(math.hypot(*(max(high - value, 0.0) for value, _, high in ends)) / len(ends))
    if not means:
        return None
    mean = math.fsum(means) / len(means)
    return mean - math.fsum(below) / len(below), mean + math.fsum(above) / len(above)


def clearly_above(gain: float, interval: Interval | None = None, deviation: float = math.nan) -> bool:
    """Whether a gain over the mask alone is one: also at the low end of its interval, and less a deviation.

    Args:
        gain: method − mask; NaN, where there is nothing to compare with, counts as clear.
        interval: of the gain, None where it is unknown.
        deviation: over seeds, NaN where there is one.
    """
    if math.isnan(gain):
        return True
    lowest = [gain, *(() if interval is None else (interval[0],))]
    return min(lowest) > 0 and not gain - deviation <= 0
