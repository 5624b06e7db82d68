"""The reproduction: a profile's notebooks, executed here or on a cluster, and their results against the published.

    dqas-reproduce --profile quick        # or python -m dqas_lib.reproduce

What is finished and unchanged is not run again, so a stopped reproduction goes on when the same command is given again.
At the end every value of every table is compared with the published one.

On a cluster (--scheduler, the extra "distributed"), this checkout, one's own results and the data must lie under equal
paths on every worker; start the workers with one thread and one GPU each: `dask worker ADDRESS --nthreads 1`.
"""

import argparse
import importlib.util
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dqas_lib import _imported
from dqas_lib.core.errors import DqasError, RunError
from dqas_lib.reproduce.places import find_profile, is_full, no_space

INPUT_STATUS, STOPPED_STATUS = 2, 130
EXTRA = ("filelock", "ipykernel", "jinja2", "matplotlib", "nbformat", "papermill", "psutil", "pydantic", "yaml")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="dqas-reproduce", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--profile", default="quick", help="a name in notebooks/profiles, or the path of a .yaml file (default: quick)")
    add("--run", action="append", default=[], metavar="NAME", help="only this run of the profile, and what it needs")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter for every notebook that has it")
    add("--device", choices=("auto", "cpu", "cuda"), help="instead of the profile's device")
    add("--slots", type=int, help="runs at a time: cores of a CPU, or places on GPUs (default: all cores, all GPUs)")
    add(
        "--scheduler",
        metavar="ADDRESS",
        help="run on this Dask cluster; a worker per GPU, each with its CUDA_VISIBLE_DEVICES",
    )
    add("--reports", type=Path, metavar="DIR", help="where your own results go (default: reports/own, ignored by git)")
    add("--strict", action="store_true", help="exit status 3 when a value is outside the published interval")
    add(
        "--publish",
        action="store_true",
        help="afterwards make these results (with --run: of that run) the published ones, in reports/",
    )
    add("--dry-run", action="store_true", help="say what would run and for how long, and do nothing")
    add("--only-failed", action="store_true", help="only what failed last time, what that needs and what waits for it")
    add("--force", action="store_true", help="run what is finished, too")
    add("--debug", action="store_true", help="show tracebacks")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Console entry.

    The exit status is 0: all finished, 1: a run failed, 2: the command cannot be carried out, 3: --strict and a value
    is not as published, 130: ended from outside.
    """
    options = arguments(argv)
    before = signal.signal(signal.SIGTERM, _end)
    words = sys.argv[1:] if argv is None else argv
    again = [word for word in words if word not in ("--only-failed", "--force", "--dry-run", "--publish")]
    try:
        find_profile(options.profile)  # a mistyped name is told before anything large is imported
        if missing := [name for name in EXTRA if importlib.util.find_spec(name) is None]:
            reason = f"this needs the extra 'notebooks' (no {', '.join(missing)})"
            raise RunError(
                f"{reason}: pip install 'dqas-kit[notebooks]', or pip install '.[notebooks]' in the checkout"
            )
        from dqas_lib.reproduce.reproduction import reproduce

        _imported()
        return reproduce(options, shlex.join(["python", "-m", "dqas_lib.reproduce", *again]))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED_STATUS
    except (DqasError, OSError) as error:
        if options.debug:
            raise
        text = no_space(options.reports or "your results") if is_full(error) else " ".join(str(error).split())
        print(f"error: {text}", file=sys.stderr)
        return INPUT_STATUS
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(*_: Any) -> None:
    """SIGTERM ends a reproduction as Ctrl-C does, also where interrupts are ignored: `nohup make reproduce &`."""
    raise KeyboardInterrupt
