"""What the data scripts share: original archives, given or downloaded, and the command line."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from cascadeclip.data.benchmarks import Benchmark
from cascadeclip.data.folders import listed_stems
from cascadeclip.data.prepare.fetch import digest, download, extract, members
from cascadeclip.data.prepare.verifying import in_parallel, verify
from cascadeclip.errors import InputError
from cascadeclip.files import check_file, is_file, replace_file, write_text
from cascadeclip.utf8 import print_every_letter


@dataclass(frozen=True)
class Source:
    """An original file of a benchmark.

    Attributes:
        name: what it is, for messages.
        url: where it comes from; None where it can only be given.
        md5: published checksum, if there is one.
        member: pattern of the files to take out of the archive; its group is their path in the layout. None: the
            file is no archive, it is recognised by the end of its name.
    """

    name: str
    url: str | None
    md5: str | None = None
    member: str | None = None

    def place(self, name: str) -> str | None:
        """Path of a member in the layout; None for one that is not needed."""
        found = re.fullmatch(self.member, name) if self.member else None
        return found[1] if found else None


def recognise(path: Path, sources: Sequence[Source]) -> Source | None:
    """Which of the sources a file is: an archive by the first member that one of them has a place for."""
    for source in sources:
        if source.member is None and source.url and path.suffix == Path(source.url).suffix:
            return source
    for member in members(path):
        for source in sources:
            if source.place(member.name):
                return source
    return None


@dataclass
class Job:
    """One run of a script.

    Attributes:
        benchmark: what to prepare.
        root: folder of all data.
        jobs: threads.
        given: archives on disk, by what they are.
    """

    benchmark: Benchmark
    root: Path
    jobs: int = 1
    given: dict[Source, Path] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.root / self.benchmark.folder

    def accept(self, sources: Sequence[Source], paths: Sequence[Path]) -> None:
        """Take archives that are on disk already.

        Raises:
            InputError: one that is missing, damaged or of no use here, or two of a kind.
        """
        for path in paths:
            check_file(path, "archive")
            source = recognise(path, sources)
            if source is None:
                raise InputError(f"{path} is none of: {'; '.join(source.name for source in sources)}")
            if source in self.given:
                raise InputError(f"{path} and {self.given[source]} are both {source.name}; give one of them")
            self.given[source] = path
            print(_compared(path, source))

    def obtain(self, source: Source) -> Path:
        """The file as it was given, or else as downloaded."""
        if source in self.given:
            return self.given[source]
        if source.url is None:
            raise InputError(f"{source.name} cannot be downloaded; give it with --archive")
        path = download(source.url, self.root / "downloads" / source.url.rsplit("/", 1)[1], md5=source.md5)
        if source.md5 is None:
            print(_compared(path, source))
        return path

    def extract(self, source: Source, target: Path, needed: Callable[[str], bool] = lambda place: True) -> None:
        """Take the source's members out of its archive; `needed` says of a path under `target` whether it is."""

        def wanted(name: str) -> str | None:
            place = source.place(name)
            return place if place is not None and needed(place) else None

        written = extract(self.obtain(source), target, wanted)
        print(f"{source.name}: {written:,} files extracted to {target}")

    def convert(self, work: Callable[[str], np.ndarray], stems: Sequence[str], target: Callable[[str], Path]) -> None:
        """Write the label maps (H, W) uint8 that `work` makes of each stem, where there is none yet."""
        stems = [stem for stem in stems if not is_file(target(stem))]

        def write(stem: str) -> None:
            values = Image.fromarray(work(stem))
            replace_file(target(stem), lambda scratch: values.save(scratch, format="PNG"), sync=False)

        for _ in in_parallel(write, stems, self.jobs, "label maps"):
            pass
        print(f"{len(stems):,} label maps written")


def _compared(path: Path, source: Source) -> str:
    """What an archive's checksum says. Another one than the published is no error: archives are packed anew."""
    if source.md5 is None:
        return f"{path}: no checksum is published for {source.name}; its SHA-256 is {digest(path, 'sha256')}"
    if (found := digest(path)) == source.md5:
        return f"{path}: its MD5 checksum is the published one of {source.name}"
    return (
        f"WARNING {path}: its MD5 checksum is {found}, not {source.md5}, the published one of {source.name}: another "
        "version, packed anew, changed or damaged"
    )


def read_list(path: Path) -> list[str]:
    """First word of every line, checked before it becomes a path; empty for a file that is not there."""
    return listed_stems(path, empty_allowed=True) if is_file(path) else []


def write_list(path: Path, stems: Sequence[str]) -> None:
    text = "".join(f"{stem}\n" for stem in stems)
    write_text(path, text)
    print(f"{path}: {len(stems):,} pictures")


def all_there(folder: Path, stems: Sequence[str], suffix: str) -> bool:
    return all(is_file(folder / f"{stem}{suffix}") for stem in stems)


def demand(folder: Path, stems: Sequence[str], suffix: str, source: Source) -> None:
    """Raise an InputError that names the files which are not there although their archive was extracted."""
    missing = [f"{stem}{suffix}" for stem in stems if not is_file(folder / f"{stem}{suffix}")]
    if missing:
        raise InputError(
            f"{len(missing):,} files are not in {folder}, the first of them {', '.join(missing[:3])}, and "
            f"{source.name} does not hold them: give the whole archive"
        )


def main(
    benchmark: Benchmark,
    sources: Sequence[Source],
    prepare: Callable[[Job], None],
    description: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """The command line of a data script.

    Returns:
        Exit status: 0; 1 if a file is missing or damaged, with `--verify` also if a split has not all its pictures
        (unless `--subset`); 2 if the archives could not be had or read.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data"), metavar="DIR", help="of all data; default: data")
    parser.add_argument(
        "--archive", type=Path, action="append", default=[], metavar="FILE",
        help="an original archive that is on disk already; give it again for each; it is not downloaded then",
    )  # fmt: skip
    parser.add_argument("--verify", action="store_true", help="read everything, report, change nothing")
    parser.add_argument("--subset", action="store_true", help="with --verify: fewer pictures than in all are meant")
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="threads; default: 4")
    options = parser.parse_args(arguments)
    print_every_letter()
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: at least 1")
    try:
        if not options.verify:
            job = Job(benchmark, options.root, options.jobs)
            job.accept(sources, options.archive)
            prepare(job)
        report = verify(benchmark, options.root, options.jobs)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report)
    whole = report.is_whole or options.subset or not options.verify
    return 0 if report.is_sound and whole else 1
