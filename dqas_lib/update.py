"""A growing set: new images join a compressed one without choosing among all of them again [ours]."""

from dataclasses import replace
from typing import Any

import numpy as np

from dqas_lib.compressed.read import CompressedSet
from dqas_lib.core.checks import number, of_kind, one_of
from dqas_lib.core.errors import InputError
from dqas_lib.data.image_set import ImageSet
from dqas_lib.methods.base import METHODS, Method
from dqas_lib.quantize import Selection, quantize
from dqas_lib.training.recipes import get_recipe, scaled
from dqas_lib.training.setting import Setting

MISSING = ("stop", "keep")


def update(
    compressed: Selection | CompressedSet | ImageSet,
    new: ImageSet,
    *,
    ratio: float | None = None,
    method: str | Method | None = None,
    seed: int = 0,
    setting: Setting | None = None,
    effort: float = 0.2,
    missing: str = "stop",
) -> Selection:
    """Select among the new images only, and put them beside those selected before.

    What was selected stays; what was left out then is not needed any more. The method learns on the new images alone,
    so the cost follows their number: a recipe of epochs is shorter by itself, one of steps is shortened to `effort`.

    Args:
        compressed: What was selected before: a selection, an opened compressed set, or its images.
        new: The images that have come, of the same size; their classes are matched by name and may be new ones.
        ratio: Image ratio among the new ones; None: that of the compressed set, which images alone do not know.
        method: None: the method of the compressed set, with its default options.
        seed, setting: As in `quantize`.
        effort: Fraction of a recipe's steps, in (0, 1].
        missing: "stop": InputError when a class of the compressed set has no new image; "keep": it stays as it is.

    Returns:
        A `Selection` of old and new together. Dropped patches: the new images lose theirs by the rule of the old ones,
        and the same autoencoder reconstructs them.

    Raises:
        InputError: For sets that do not fit: other sizes, ids that are there already, a class that vanished.
    """
    effort = number("effort", effort, 0, 1, ends="(]")
    of_kind("the new images", new, ImageSet, "give the part of a data set that has come, such as its train")
    one_of("missing", missing, MISSING)
    before, known, kept, coder = _parts(compressed)
    ratio, method = ratio or known.get("image_ratio"), method or known.get("method", {}).get("name")
    if ratio is None or method is None or (isinstance(method, str) and method not in METHODS):
        raise InputError(f"the compressed set does not say how it was made (ratio {ratio}, method {method}): give both")
    if (gone := vanished(before, new)) and missing == "stop":
        names = ", ".join(map(repr, gone[:5])) + (" ..." if len(gone) > 5 else "")
        raise InputError(f"no new image is of class {names}: add some, or give missing='keep' if the class is complete")
    setting = (setting or Setting()).suited_to(new)
    if get_recipe(setting.recipe).kind == "fixed-step":
        setting = setting.replace(recipe=scaled(setting.recipe, effort))
    rule: dict[str, Any] = {"patchify": "none"}
    if coder is not None:
        plan = known.get("patchify", {})
        rule = {name: plan[name] for name in ("theta", "drop", "patch_size") if name in plan}
        rule |= {"patchify": plan.get("order", "first"), "autoencoder": coder}
    joined(before, new)  # what does not fit is told before any work
    added = quantize(new, ratio, method=method, seed=seed, setting=setting, **rule)
    images = joined(before, added.images)
    n_before = round(len(before) / known.get("image_ratio", ratio))
    joins = [*known.get("updates", []), {"kept": len(before), "pool": len(new), "added": len(added), **added.settings}]
    return replace(
        added,
        images=images,
        n_pool=n_before + len(new),
        settings={**known, "method": added.settings["method"], "updates": joins},
        weights=None,
        trace={},
        kept=None if kept is None or added.kept is None else np.concatenate([kept, added.kept]),
    )


def _parts(compressed: Any) -> tuple[ImageSet, dict[str, Any], np.ndarray | None, Any]:
    """Images, what is known of how they were selected, masks and autoencoder, where patches were dropped."""
    if isinstance(compressed, ImageSet):
        return compressed, {}, None, None
    if isinstance(compressed, CompressedSet):
        known = dict(compressed.manifest["settings"])
    else:
        of_kind("the compressed set", compressed, Selection, "give what quantize or open_compressed gives")
        known = {**compressed.settings, "image_ratio": compressed.image_ratio}
    return compressed.images, known, compressed.kept, compressed.autoencoder


def vanished(before: ImageSet, new: ImageSet) -> tuple[str, ...]:
    """Classes of the first set that have no image in the second; they are matched by name."""
    old, there = ({part.class_names[c] for c in np.flatnonzero(part.class_counts)} for part in (before, new))
    return tuple(sorted(old - there))


def joined(first: ImageSet, second: ImageSet) -> ImageSet:
    """Both sets in one, the images of the first in front; classes are matched by name.

    InputError for images of different sizes, or an id that stands in both.
    """
    if first.size != second.size or first.ids.dtype.kind != second.ids.dtype.kind:
        raise InputError(
            f"images of {first.size} px with ids like {first.ids[:1].tolist()} and of {second.size} px with ids like "
            f"{second.ids[:1].tolist()} make no set: load both with the same size, and from the same kind of source"
        )
    if len(both := np.intersect1d(first.ids, second.ids)):
        raise InputError(f"{len(both):,} ids stand in both sets, {both.tolist()[0]!r} for one: rename the new files")
    names = (*first.class_names, *(name for name in second.class_names if name not in first.class_names))
    label_of = {name: label for label, name in enumerate(names)}
    labels = np.array([label_of[name] for name in second.class_names], dtype=np.int64)[second.labels]
    return replace(
        first,
        images=np.concatenate([first.images, second.images]),
        labels=np.concatenate([first.labels, labels]),
        ids=np.concatenate([first.ids, second.ids]),
        class_names=names,
    )
