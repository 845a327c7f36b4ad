"""`cascadeclip data check | init`: own pictures and masks, looked at before anything is trained on them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from cascadeclip.errors import InputError

if TYPE_CHECKING:
    from cascadeclip.data.folders import FolderDataset

OVERLAYS, OVERLAY = 5, "cascadeclip data check"  # how many, and the text of a PNG file that is one
app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at your own pictures and masks before training on them."
)


@app.command()
def check(
    own: Annotated[Path, typer.Argument(help="The JSON file that describes them; `data init` begins one.")],
    out: Annotated[Path | None, typer.Option(help="Folder for pictures with their masks; own-check beside it.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read the first pictures of each split only.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Threads that read.")] = 4,
) -> None:
    """Read everything: classes with their shares of the pixels, sizes, what is left out, the split, five overlays."""
    from cascadeclip.data.check import check_split, report
    from cascadeclip.data.folders import files_of
    from cascadeclip.files import check_apart
    from cascadeclip.presets import own_arguments, read_own_preset

    preset, arguments = read_own_preset(own), own_arguments(own)
    data = {"train": cast("FolderDataset", preset.train_data(0)), "val": cast("FolderDataset", preset.eval_data("val"))}
    folder = out or own.parent / "own-check"
    check_apart([folder], {path.parent for some in data.values() for path in files_of(some)})
    overlays = _overlays(data["train"], folder)
    checks = {split: check_split(some, len(preset.names), jobs=jobs, limit=limit) for split, some in data.items()}
    by_share = not any(arguments.get(key) for key in ("val_images", "val_pairs", "val_coco"))
    print(*report(checks, preset.names, preset.unseen, by_share=by_share), sep="\n")
    written = _draw_overlays(data["train"], preset.names, preset.unseen, overlays)
    print(f"wrote {written} pictures with their masks to {folder}")
    if any(one.damaged for one in checks.values()):
        raise InputError(f"{own}: some files cannot be used, see above")


def _overlays(data: "FolderDataset", folder: Path) -> dict[int, Path]:
    """Pictures, spread over the data, that may be shown, and where; an `InputError` if a file of others is there."""
    from cascadeclip.data.images import check_own_png

    overlays = {index: folder / f"overlay-{index}.png" for index in range(0, len(data), max(1, len(data) // OVERLAYS))}
    for path in overlays.values():
        check_own_png(path, OVERLAY)
    return overlays


def _draw_overlays(
    data: "FolderDataset", names: tuple[str, ...], unseen: tuple[str, ...], overlays: dict[int, Path]
) -> int:
    """Pictures beside their masks, as many as can be read of the first; returns how many."""
    from cascadeclip.plots.evaluation import plot_maps
    from cascadeclip.plots.figure import save_figure

    written = 0
    for index, path in overlays.items():
        if written == OVERLAYS:
            break
        try:
            image, labels = data.read(index)
        except InputError:  # told of already
            continue
        every = max(1, max(labels.shape) // 800)
        panels = [image[::every, ::every]], {"mask": [labels[::every, ::every]]}
        save_figure(plot_maps(*panels, names, unseen, grey="no class"), path, {OVERLAY: str(index)})
        written += 1
    return written


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="With pictures and masks somewhere below.")],
    out: Annotated[Path | None, typer.Option(help="File to write; own.json in that folder.")] = None,
) -> None:
    """Begin an own.json with what lies in a folder: where pictures and masks are, and the masks' numbers."""
    from cascadeclip.data.look import describe_folder
    from cascadeclip.files import exists, write_json

    path = out or folder / "own.json"
    if exists(path):
        raise InputError(f"{path} is there already: give another name with --out, or remove it")
    described = describe_folder(folder)
    if path.parent.resolve() != folder.resolve():
        described = {key: _from(path, folder, key, value) for key, value in described.items()}
    write_json(path, described)
    numbers = len(described["values"])
    print(
        f"wrote {path}: {numbers} numbers or colours in the masks. Put your words for them in, choose the unseen ones,"
    )
    print(f"then look at it: cascadeclip data check {path}")


def _from(path: Path, folder: Path, key: str, value: Any) -> Any:
    """A path of the description, as seen from where it is written."""
    return str((folder / value).resolve()) if key.endswith(("images", "masks")) else value
