"""`python -m dqas_lib`: compress a folder of images, and let it grow."""

import argparse
import os
import sys
from collections.abc import Sequence

from dqas_lib import _imported
from dqas_lib.core.errors import DqasError

INPUT_STATUS, STOPPED_STATUS = 2, 130


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m dqas_lib", description=(__doc__ or "").partition(": ")[2])
    commands = parser.add_subparsers(dest="command", required=True)
    compress = commands.add_parser("compress", help="choose images of FOLDER, write their original files to OUT")
    compress.add_argument(
        "--bytes", help="in place of a ratio: what the chosen files may take, 20MB, or 5%% of them all"
    )
    update = commands.add_parser("update", help="new images of FOLDER join those chosen before, in JOIN")
    update.add_argument("join", metavar="JOIN", help="what compress wrote, with --as folder; it is only read")
    for command in (compress, update):
        add = command.add_argument
        add("folder", metavar="FOLDER", help="a folder per class, or train/ and test/ with those; it is only read")
        add("--out", required=True, metavar="OUT", help="the new data set: a path where nothing is, outside of FOLDER")
        add("--ratio", type=float, help="fraction of the images to keep, such as 0.1 (update: that of JOIN)")
        add("--method", help="a name of dqas_lib.METHODS (default: dqas-plus; update: that of JOIN)")
        add("--seed", type=int, default=0, help="of every random draw (default: 0)")
        add("--as", dest="form", default="folder", help="folder, parquet (Hugging Face) or yolo (a list)")
        add("--link", nargs="?", const="hard", default="none", help="hard (or symbolic) links in place of copies")
        add("--size", type=int, default=32, help="side in pixels of the copies that are looked at (default: 32)")
        add("--fit", default="crop", help="crop: their middle; pad: the whole picture on black")
        add("--skip", action="store_true", help="leave out files that cannot be read, instead of stopping")
        add("--no-mirror", action="store_true", help="a mirrored image is none of its class: writing, road signs")
        add("--near", type=float, default=0.97, help="cosine from which images are near-duplicates (default: 0.97)")
        add("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Console entry. The exit status is 0: done; 2: it cannot be carried out, 130: stopped, and nothing was written."""
    options = arguments(argv)
    try:
        from dqas_lib.compress import compress_folder

        _imported()
        done = compress_folder(
            options.folder,
            options.out,
            options.ratio,
            bytes=getattr(options, "bytes", None),
            join=getattr(options, "join", None),
            method=options.method,
            seed=options.seed,
            form=options.form,
            link=options.link,
            size=options.size,
            fit=options.fit,
            on_error="skip" if options.skip else "stop",
            mirror=not options.no_mirror,
            near=options.near,
            progress=not options.quiet,
        )
    except KeyboardInterrupt:
        print("stopped, nothing was written", file=sys.stderr)
        return STOPPED_STATUS
    except DqasError as error:
        if os.environ.get("DQAS_DEBUG", "0") not in ("", "0"):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return INPUT_STATUS
    print(done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
