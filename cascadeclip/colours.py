"""Colours that stand for the same thing wherever the package draws it."""

import colorsys
from collections.abc import Sequence

import numpy as np

SEEN_COLOUR, UNSEEN_COLOUR, HARMONIC_COLOUR = "#4878a8", "#d1495b", "#7a7a7a"
# The comparison `fusion`; other colours than those of seen and unseen, which stand beside them, and of other lightness.
MODEL_COLOURS = {"last layer": "#222222", "sum": "#e69f00", "concat": "#2ca02c", "cascade": "#8c1fa8"}
OTHER_COLOURS = ("#5b8c5a", "#c9822b", "#5f6b8a", "#a05a7c")  # of series that stand for none of these
OTHER_COLOUR = (0.8, 0.8, 0.8)  # of classes that a legend has no room for

# The mini world's words. Stuff as one knows it; a thing near the mean colour of its sprites, moved until no two words
# are closer than 12 in CIELAB (a difference of 2 is just seen).
_OF_WORDS = """
    cat f7ad2c, dog e2a389, tiger f5943d, rabbit c7afc1, horse c28061, cow a38b96, pig f79eab, sheep f7d1b0,
    elephant 9fabbc, bear a25f4d, panda a793b5, lion b58325, fox f0782c, frog b0c34e, penguin c48b86, owl ca7649,
    duck 9c915b, turtle 82a752, fish 349ce6, whale 73aee7, octopus d46d95, butterfly a5686b, bee d1a350,
    snail d69b68, crab f74751, apple df4231, banana f7cb5c, pizza f7b26d, burger d48e47, strawberry cf5535,
    grapes 875ea8, carrot d58f20, corn b8ab30, cheese f7c536, donut b07943, car d14242, bus aea6a2, train 7f8fb0,
    bicycle da6970, boat ec9572, airplane 6e90d2, rocket c8756f, truck f18d54, tractor 8fa264, guitar c84355,
    umbrella 765ac9, camera 5e7084, clock f57f69, book e43859, scissors f2616a, telephone b91238, drum cc5d4f,
    laptop 66b8de, television 5594bd, balloon ce122f, ball 7884dc, crown f3b04f, tree 6b982a, cactus 7fbb51,
    sunflower cca02d, mushroom f76656, house bc9773, grass 4f9e3d, water 2a78b8, sand dcc48e, brick a4492f,
    wood 8b5e34, sky 9fd3f2, snow eef3f8, night 1c2452, stone 7d8083, leaves 66771f
"""
WORD_COLOURS = {word: f"#{colour}" for word, colour in (pair.split() for pair in _OF_WORDS.split(","))}


def model_colour(name: str, otherwise: str) -> str:
    """The colour of a row of the comparison `fusion`, also as "last-layer" or "cascade, whole"; else `otherwise`."""
    return MODEL_COLOURS.get(name.partition(",")[0].replace("-", " "), otherwise)


def class_colours(names: Sequence[str]) -> np.ndarray:
    """Colours of classes, floats in 0..1: (number of names, 3).

    A word of the mini world has the same colour in every figure, however it is written, close to that of the thing
    itself. Others get theirs by position: hues by the golden ratio, three levels of saturation and brightness.
    """
    known = {name: [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)] for name, code in WORD_COLOURS.items()}
    return np.array([
        known.get(name.strip().casefold())
        or colorsys.hsv_to_rgb(i * 0.61803398875 % 1, (0.75, 0.5, 0.95)[i % 3], (0.95, 0.8, 0.65)[i // 3 % 3])
        for i, name in enumerate(names)
    ]).reshape(-1, 3)  # fmt: skip
