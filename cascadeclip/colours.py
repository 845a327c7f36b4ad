"""Colours that stand for the same thing wherever the package draws it."""

import colorsys

import numpy as np

SEEN_COLOUR, UNSEEN_COLOUR, HARMONIC_COLOUR = "#4878a8", "#d1495b", "#8d6a9f"
OTHER_COLOUR = (0.8, 0.8, 0.8)  # of classes that a legend has no room for


def class_colours(count: int) -> np.ndarray:
    """`count` distinct colours (count, 3), floats in 0..1: hues by the golden ratio, three levels of brightness."""
    return np.array([
        colorsys.hsv_to_rgb(i * 0.61803398875 % 1, (0.75, 0.5, 0.95)[i % 3], (0.95, 0.8, 0.65)[i // 3 % 3])
        for i in range(count)
    ])  # fmt: skip
