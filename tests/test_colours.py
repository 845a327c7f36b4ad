"""One colour for a word, wherever it is drawn."""

import numpy as np

from cascadeclip.colours import MODEL_COLOURS, OTHER_COLOUR, WORD_COLOURS, class_colours, model_colour
from cascadeclip.data.emojiscenes import CLASSES
from cascadeclip.experiments import get_comparison


def lab(colours: np.ndarray) -> np.ndarray:
    """sRGB in 0..1 -> CIELAB, white D65."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    f = np.cbrt(xyz / [0.9505, 1, 1.089])  # all are bright enough for the root
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def test_every_word_of_the_mini_world_has_a_colour_of_its_own():
    assert set(WORD_COLOURS) == set(CLASSES)
    found = lab(np.vstack([class_colours(CLASSES), OTHER_COLOUR]))
    apart = np.linalg.norm(found[:, None] - found, axis=-1) + 1e3 * np.eye(len(found))
    assert apart.min() > 12


def test_a_word_has_the_same_colour_in_every_list():
    grass, water, sand = class_colours(("grass", "water", "sand"))
    assert np.array_equal(class_colours(("sofa", "sand", "grass"))[1:], [sand, grass])
    assert np.array_equal(class_colours(("Grass", " water")), [grass, water])
    assert grass.argmax() == 1 and water.argmax() == 2 and sand.argmin() == 2


def test_other_words_have_colours_that_differ():
    assert len(np.unique(class_colours([f"word {i}" for i in range(60)]), axis=0)) == 60
    assert class_colours(()).shape == (0, 3)


def test_a_model_keeps_its_colour_under_its_other_names():
    shown = ("last layer", "last-layer", "cascade, whole", "sum", "independent")
    own = [MODEL_COLOURS[row] for row in ("last layer", "last layer", "cascade", "sum")]
    assert [model_colour(name, "C9") for name in shown] == [*own, "C9"]
    assert list(MODEL_COLOURS) == [variant.name for variant in get_comparison("fusion").variants]
