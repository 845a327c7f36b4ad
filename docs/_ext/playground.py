"""The playground: a page that runs the shipped segmenter in the browser, put together at every build of the pages.

A page that is opened from a folder on disk may fetch nothing, so all it needs stands in scripts beside it: pictures as
data addresses, the model's graphs and onnxruntime-web's machine code (which gzip makes four times smaller) as base64.
"""

import base64
import gzip
import hashlib
import html
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import graphs
import numpy as np
import torch
from PIL import Image
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.typing import ExtensionMetadata

import cascadeclip
from cascadeclip.data.emojiscenes import CLASSES, STUFF, THINGS
from cascadeclip.data.textures import texture_sheets
from cascadeclip.data.transforms import IMAGE_MEAN, IMAGE_STD
from cascadeclip.explorers.compute import trained_weights
from cascadeclip.segmenter import Segmenter

DOCS = Path(__file__).resolve().parents[1]
PAGE = DOCS / "playground"
ASSETS = Path(cascadeclip.__file__).parent / "assets"
MADE = DOCS / "_build" / "made"

MODEL = "mini/cascade-prompts"
RUNTIME = "onnxruntime-web"
VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # of npm's archive
PARTS = {"api": "ort.wasm.min.js", "glue": "ort-wasm-simd-threaded.mjs", "machine": "ort-wasm-simd-threaded.wasm"}


class NoRuntime(ExtensionError):
    """onnxruntime-web is not there and cannot be had."""


# --- the world --------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def world(segmenter: Segmenter) -> dict[str, object]:
    """Words with their embeddings, settings and pictures."""
    model = segmenter.model
    text = model.centred(segmenter.clip.class_embeddings(CLASSES, segmenter.templates))
    sprites = json.loads((ASSETS / "sprites.json").read_text(encoding="utf-8"))
    weights = trained_weights(model)
    return {
        "words": CLASSES,
        "things": THINGS,
        "stuff": STUFF,
        "seen": segmenter.seen,
        "embeddings": graphs.text(text.numpy().astype("<f4").tobytes()),
        "stages": [
            {"blocks": blocks, "weights": weights.get(stage, [1.0] * len(blocks)), "nga": stage in weights}
            for stage, blocks in enumerate(model.config.stages)
        ],
        "offset": segmenter.seen_offset,
        "mean": IMAGE_MEAN,
        "std": IMAGE_STD,
        "side": model.config.tower.image_size,
        "grid": model.config.tower.image_size // model.config.tower.patch_size,
        "cell": sprites["cell"],
        "styles": sprites["styles"],
        "sprites": _address((ASSETS / "sprites.png").read_bytes()),
        "textures": _address(_sheets(model.config.tower.image_size)),
    }


def _sheets(side: int) -> bytes:
    """One sheet of every texture, side by side, as a PNG."""
    row = np.concatenate([texture_sheets(side)[name][0] for name in STUFF], axis=1)
    file = io.BytesIO()
    Image.fromarray(row).save(file, "png", optimize=True)
    return file.getvalue()


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{graphs.text(png)}"


# --- onnxruntime-web --------------------------------------------------------------------------------------------------


def runtime(made: Path = MADE) -> dict[str, bytes]:
    """The parts of onnxruntime-web that compute on a CPU, out of npm's archive, which is asked for once.

    Raises:
        NoRuntime: it is not in the folder `made`, and npm does not give it; or it is another one.
    """
    archive = made / f"{RUNTIME}-{VERSION}.tgz"
    if not archive.exists():
        _ask_npm(made)
    content = archive.read_bytes()
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != SHA512:
        raise NoRuntime(f"{archive} is not the archive that is meant: remove it, and build again")
    with tarfile.open(fileobj=io.BytesIO(content)) as opened:
        return {part: opened.extractfile(f"package/dist/{name}").read() for part, name in PARTS.items()}


def _ask_npm(made: Path) -> None:
    """`npm pack` the archive into a folder."""
    wanted, npm = f"{RUNTIME}@{VERSION}", shutil.which("npm")
    by_hand = f"install npm, or put {RUNTIME}-{VERSION}.tgz of the npm registry into {made}"
    if npm is None:
        raise NoRuntime(f"the playground needs {wanted}, and there is no npm here: {by_hand}")
    made.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made) as scratch:
        asked = subprocess.run([npm, "pack", "--silent", wanted], cwd=scratch, capture_output=True, text=True)
        if asked.returncode:
            reason = asked.stderr.strip()
            raise NoRuntime(f"the playground needs {wanted}, and npm does not give it: {by_hand}\n{reason}")
        for archive in Path(scratch).glob("*.tgz"):
            archive.replace(made / archive.name)


# --- the page ---------------------------------------------------------------------------------------------------------


def build(target: Path, made: Path = MADE) -> None:
    """Write the playground into a folder: everything that it needs, below 30 MB.

    Args:
        target: what is in it is removed.
        made: where the archive from npm and the exported model are kept, so that the next build is short.

    Raises:
        NoRuntime: see `runtime`.
    """
    parts, segmenter = runtime(made), cascadeclip.load(MODEL)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(PAGE, target)
    shutil.copytree(ASSETS / "licenses", target / "licenses")
    code = {name: content.decode() for name, content in parts.items() if name != "machine"}
    _write(target / "runtime.js", code | {"machine": graphs.text(gzip.compress(parts["machine"], 9, mtime=0))})
    _write(target / "world.js", world(segmenter))
    kept = made / f"model-{graphs.key()}.js"
    if not kept.exists():
        for old in made.glob("model-*.js"):
            old.unlink(missing_ok=True)
        _write(kept, graphs.export(segmenter.model), "model")
    shutil.copy(kept, target / "model.js")


def _write(path: Path, content: dict[str, object], name: str = "") -> None:
    """A script that defines one constant; in one step, for others may build at the same time."""
    scratch = path.with_suffix(f".{os.getpid()}")
    scratch.write_text(f"const {(name or path.stem).upper()} = {json.dumps(content)};\n", encoding="utf-8")
    scratch.replace(path)


def tell_missing(target: Path, reason: NoRuntime) -> None:
    """Write a page in the playground's place that says why it is not there: links to it lead somewhere."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copy(PAGE / "playground.css", target)
    page = Path(__file__).with_name("no_playground.html").read_text(encoding="utf-8")
    (target / "index.html").write_text(page.replace("REASON", html.escape(str(reason))), encoding="utf-8")


def _with_pages(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        target = Path(app.outdir) / "playground"
        try:
            build(target)
        except NoRuntime as reason:
            print(f"The playground is left out: {reason}", file=sys.stderr)  # the other pages are whole
            tell_missing(target, reason)


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("build-finished", _with_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":  # the playground alone: python docs/_ext/playground.py FOLDER
    build(Path(sys.argv[1]))
