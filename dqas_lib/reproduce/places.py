"""Where things lie: notebooks and profiles, published results, and one's own. Light to import, for quick answers.

In a checkout `reports/` holds what is published and `reports/own/` one's own results, which git ignores. Installed
without the checkout, the package brings notebooks, profiles and published tables along (KIT, filled by setup.py); one's
own results then go to reports/own/ of the working folder.
"""

import errno
import os
from pathlib import Path
from typing import NamedTuple

from dqas_lib.core.digests import LIBRARY
from dqas_lib.core.errors import InputError
from dqas_lib.core.registry import unknown

KIT = LIBRARY / "kit"


class Places(NamedTuple):
    """The folders of one reproduction."""

    root: Path  # beside notebooks/, or the working folder
    published: Path
    own: Path


def find_profile(name: str) -> Path:
    """The file of a profile: a path, or a name in notebooks/profiles of a checkout or of the installed kit."""
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise InputError(f"no profile file {name}")
        return Path(name).resolve()
    here = Path.cwd().resolve()
    folders = [root / "notebooks" / "profiles" for root in (LIBRARY.parent, here, *here.parents, KIT)]
    known = {file.stem: file for folder in reversed(folders) for file in sorted(folder.glob("*.yaml"))}
    if not known:
        where = f"{LIBRARY.parent} nor in {here} and above"
        raise InputError(f"no notebooks/profiles in {where}: start in the kit's checkout")
    if name not in known:
        raise InputError(f"{unknown('profile', name, known)} (or give the path of a .yaml file)")
    return known[name]


def places_of(profile: Path, own: Path | None = None) -> Places:
    """The folders that belong to a profile's file; own: instead of reports/own.

    InputError when one's own results would be written over the published ones.
    """
    beside = profile.parents[2] if profile.parent.name == "profiles" else profile.parent
    root, published = Path.cwd() if beside == KIT else beside, beside / "reports"
    own = (own or root / "reports" / "own").resolve()
    if own == published.resolve():
        way_out = "leave --reports away (they go to reports/own), then publish with --publish"
        raise InputError(f"{own} holds the published results, which a run does not touch: {way_out}")
    return Places(root, published, own)


def is_full(error: BaseException | None) -> bool:
    """Whether an error says that a disk is full; copying a folder tells it in words only."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, OSError) and (error.errno in full or os.strerror(errno.ENOSPC) in str(error))


def no_space(folder: Path | str) -> str:
    """The sentence about a full disk."""
    return f"no space is left on the disk of {folder}: free some and start again; finished runs are kept"
