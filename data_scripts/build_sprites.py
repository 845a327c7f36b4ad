"""Build the sprite asset of EmojiScenes from three npm packages.

    python data_scripts/build_sprites.py                 # runs `npm pack` for each package
    python data_scripts/build_sprites.py --packages DIR  # uses the .tgz files already in DIR

Writes `sprites.png` (one row per drawing style, one 64 px RGBA cell per thing) and `sprites.json` (names, styles,
code points, and where every pixel came from) into `cascadeclip/assets/`. Nothing here runs when the package is used.
"""

import argparse
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

from PIL import Image

CELL = 64  # px
ASSETS = Path(__file__).resolve().parents[1] / "cascadeclip" / "assets"

STYLES = {
    "noto": {
        "npm": "emoji-datasource-google@16.0.0",
        "member": "package/img/google/64/{code}.png",
        "art": "Noto Emoji, Google",
        "licence": "Apache-2.0",
    },
    "twemoji": {
        "npm": "emoji-datasource-twitter@16.0.0",
        "member": "package/img/twitter/64/{code}.png",
        "art": "Twemoji, Twitter and contributors (jdecked/twemoji)",
        "licence": "CC-BY-4.0",
    },
    "fluent": {
        "npm": "@lobehub/fluent-emoji-3d@1.1.0",
        "member": "package/assets/{code}.webp",
        "art": "Fluent Emoji 3D, Microsoft",
        "licence": "MIT",
    },
}

# One emoji per noun, picked so that the three styles draw recognisably the same object.
THINGS = {
    "cat": "1f408", "dog": "1f415", "tiger": "1f405", "rabbit": "1f407", "horse": "1f40e", "cow": "1f404",
    "pig": "1f416", "sheep": "1f411", "elephant": "1f418", "bear": "1f43b", "panda": "1f43c", "lion": "1f981",
    "fox": "1f98a", "frog": "1f438", "penguin": "1f427", "owl": "1f989", "duck": "1f986", "turtle": "1f422",
    "fish": "1f41f", "whale": "1f433", "octopus": "1f419", "butterfly": "1f98b", "bee": "1f41d", "snail": "1f40c",
    "crab": "1f980", "apple": "1f34e", "banana": "1f34c", "pizza": "1f355", "burger": "1f354",
    "strawberry": "1f353", "grapes": "1f347", "carrot": "1f955", "corn": "1f33d", "cheese": "1f9c0",
    "donut": "1f369", "car": "1f697", "bus": "1f68c", "train": "1f686", "bicycle": "1f6b2", "boat": "26f5",
    "airplane": "2708-fe0f", "rocket": "1f680", "truck": "1f69a", "tractor": "1f69c", "guitar": "1f3b8",
    "umbrella": "2602-fe0f", "camera": "1f4f7", "clock": "23f0", "book": "1f4d5", "scissors": "2702-fe0f",
    "telephone": "260e-fe0f", "drum": "1f941", "laptop": "1f4bb", "television": "1f4fa", "balloon": "1f388",
    "ball": "26bd", "crown": "1f451", "tree": "1f333", "cactus": "1f335", "sunflower": "1f33b",
    "mushroom": "1f344", "house": "1f3e0",
}  # fmt: skip


def npm_pack(package: str, folder: Path) -> Path:
    """Fetch one package tarball from the npm registry into `folder`; returns its path."""
    listing = subprocess.run(
        ["npm", "pack", "--json", package], cwd=folder, check=True, capture_output=True, text=True
    ).stdout
    return folder / json.loads(listing)[0]["filename"]


def find_tarball(package: str, folder: Path) -> Path:
    """The tarball that `npm pack` names for `package`, in `folder`."""
    name, version = package.lstrip("@").rsplit("@", 1)
    path = folder / f"{name.replace('/', '-')}-{version}.tgz"
    if not path.is_file():
        raise SystemExit(f"{path} is missing: run `npm pack {package}` in {folder}, or leave out --packages")
    return path


def read_sprites(tarball: Path, member: str) -> dict[str, Image.Image]:
    """Every thing's picture in one style, on a square CELL x CELL RGBA canvas."""
    sprites = {}
    with tarfile.open(tarball) as archive:
        for thing, code in THINGS.items():
            picture = Image.open(io.BytesIO(archive.extractfile(member.format(code=code)).read())).convert("RGBA")
            if picture.size != (CELL, CELL):
                picture = picture.resize((CELL, CELL), Image.Resampling.LANCZOS)
            sprites[thing] = picture
    return sprites


def build(packages: Path | None, out: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        atlas = Image.new("RGBA", (CELL * len(THINGS), CELL * len(STYLES)))
        provenance = {}
        for row, (style, source) in enumerate(STYLES.items()):
            package = source["npm"]
            tarball = find_tarball(package, packages) if packages else npm_pack(package, Path(scratch))
            for column, picture in enumerate(read_sprites(tarball, source["member"]).values()):
                atlas.paste(picture, (column * CELL, row * CELL))
            digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
            provenance[style] = {key: source[key] for key in ("npm", "art", "licence")} | {"tarball_sha256": digest}
            print(f"{style}: {len(THINGS)} sprites from {package}")
    out.mkdir(parents=True, exist_ok=True)
    atlas.save(out / "sprites.png", optimize=True)
    index = {"cell": CELL, "styles": list(STYLES), "things": THINGS, "provenance": provenance}
    (out / "sprites.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {out / 'sprites.png'}: {(out / 'sprites.png').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, help="folder that already holds the three .tgz files")
    parser.add_argument("--out", type=Path, default=ASSETS, help="default: the package's assets folder")
    arguments = parser.parse_args()
    build(arguments.packages, arguments.out)
