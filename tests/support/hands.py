"""What a person, or the front end, does to an explorer; for tests without a browser."""

import io
import random
import re
from datetime import UTC, datetime

import ipywidgets
import numpy as np
from PIL import Image

from cascadeclip.data.emojiscenes import CLASSES

PICK = random.Random(0)


def settable(one):
    """Every control with a value, of all rows."""
    rows = [row.children for row in one.children if isinstance(row, ipywidgets.Box)]
    controls = [control for row in rows for control in row]
    return [c for c in controls if hasattr(c, "value") and not isinstance(c, ipywidgets.FileUpload)]


def another(control, pick=PICK):
    """A value that the control does not have now, as a hand would choose it."""
    if isinstance(control, ipywidgets.Checkbox):
        return not control.value
    if isinstance(control, ipywidgets.Text):
        return pick.choice([word for word in CLASSES if word != control.value])
    if isinstance(control, ipywidgets.IntSlider):
        return pick.choice([n for n in range(control.min, control.max + 1) if n != control.value])
    if isinstance(control, ipywidgets.FloatSlider):
        return pick.choice([x for x in np.linspace(control.min, control.max, 9).tolist() if x != control.value])
    return pick.choice([value for _, value in control._options_full if value != control.value])


def sent(name, content):
    """What a browser sends of one chosen file."""
    return ({"name": name, "type": "image/png", "size": len(content), "content": memoryview(content),
             "last_modified": datetime.now(UTC)},)  # fmt: skip


def send(upload, name, content):
    """Give an upload widget a file, in the way of the ipywidgets that is there: 7 keeps files by name."""
    (file,) = sent(name, content)
    by_name = {name: {"metadata": {"name": name, "type": "image/png", "size": len(content)}, "content": content}}
    upload.set_trait("value", by_name if isinstance(upload.value, dict) else (file,))


def png(height=60, width=90):
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def said(one):
    return re.sub("<.*?>", "", one.message.value)


def interact(one, pick):
    """One thing that a person might do."""
    choice = pick.choice([*settable(one), one.upload, "click"])
    if choice == "click":
        one.clicked(pick.random(), pick.random())
    elif choice is one.upload:
        send(one.upload, "mine.png", png(pick.randrange(40, 200), pick.randrange(40, 200)))
    else:
        choice.value = another(choice, pick)
