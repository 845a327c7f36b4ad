"""Download the weights of CLIP models into the cache that open_clip reads, for machines without internet access.

    python data_scripts/prefetch_clip.py
    python data_scripts/prefetch_clip.py --clip ViT-B-16-quickgelu --weights openai --clip ViT-L-14 --weights openai

Prints where each lies. The n-th --weights belongs to the n-th --clip. The cache is a folder that may be copied to
another machine; the environment variable HF_HOME says where it is.
"""

import argparse
import sys
from pathlib import Path

from open_clip import get_pretrained_cfg, list_models, list_pretrained_tags_by_model
from open_clip.pretrained import download_pretrained

from cascadeclip.errors import InputError

DEFAULT = ("ViT-B-16-quickgelu", "openai")  # what the benchmarks' presets use


def fetch(clip: str, weights: str) -> Path:
    """Path of a model's weights after they were downloaded, or found in the cache.

    Raises:
        InputError: open_clip knows no such model or weights, or they cannot be had.
    """
    if clip not in list_models():
        raise InputError(f"unknown CLIP {clip!r}; open_clip.list_models() names them, e.g. {DEFAULT[0]!r}")
    tags = list_pretrained_tags_by_model(clip)
    if weights not in tags:
        raise InputError(f"CLIP {clip!r} has no weights {weights!r}; choose from {', '.join(tags) or '(none)'}")
    try:
        return Path(download_pretrained(get_pretrained_cfg(clip, weights)))
    except Exception as error:  # open_clip and the hub raise many kinds; all mean that there are no weights
        raise InputError(
            f"cannot download the weights {weights!r} of CLIP {clip!r}: {str(error).rstrip('.')}. Check the network, "
            "or run this on a machine with internet access and copy its cache"
        ) from error


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", action="append", metavar="NAME", help=f"default: {DEFAULT[0]}")
    parser.add_argument("--weights", action="append", metavar="TAG", help=f"default: {DEFAULT[1]}")
    options = parser.parse_args(arguments)
    names, tags = options.clip or [DEFAULT[0]], options.weights or [DEFAULT[1]]
    if len(names) != len(tags):
        parser.error(f"{len(names)} times --clip and {len(tags)} times --weights: give one of each per model")
    try:
        for name, tag in zip(names, tags, strict=True):
            path = fetch(name, tag)
            print(f"{name} {tag}: {path} ({path.stat().st_size / 1e6:,.1f} MB)")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
