"""Should I do this? Which lever helps: re-encode, select, both or nothing, worked out from one's own numbers [ours]."""

from dataclasses import dataclass

from jinja2.filters import do_filesizeformat as in_bytes

from dqas_lib.core.checks import number, whole_number

LEVERS = {
    (False, False): "nothing",
    (True, False): "re-encode",
    (False, True): "select",
    (True, True): "re-encode and select",
}


@dataclass(frozen=True)
class Advice:
    """The lever, one of LEVERS, and why, in sentences."""

    lever: str
    reasons: tuple[str, ...]


def advise(
    *,
    n_images: int,
    bytes_per_image: float,
    bytes_there: float,
    trainings: int,
    training_minutes: float,
    selection_minutes: float,
    ratio: float = 0.1,
    fixed_steps: bool = False,
    labeled: bool = True,
) -> Advice:
    """Which lever pays: re-encoding when bytes are short, selecting when the trainings it shortens outweigh its cost.

    Args:
        n_images, bytes_per_image: What there is.
        bytes_there: Room for it, on disk or on the way.
        trainings, training_minutes: How many there will be, and how long one takes on all the images.
        selection_minutes: What selecting takes, once; most methods train at least one network on all the images.
        ratio: Fraction of the images that would be kept, in (0, 1).
        fixed_steps: Trainings take as many steps on few images as on many; False: as many passes.
        labeled: Whether the labels are known; False: they will be bought.

    Raises:
        InputError: For a number out of range.
    """
    whole_number("n_images", n_images)
    whole_number("trainings", trainings, 0)
    number("ratio", ratio, 0, 1, ends="()")
    amounts = {"bytes_per_image": bytes_per_image, "bytes_there": bytes_there}
    amounts |= {"training_minutes": training_minutes, "selection_minutes": selection_minutes}
    for name, value in amounts.items():
        number(name, value, 0)
    total, each = n_images * bytes_per_image, 0.0 if fixed_steps else (1 - ratio) * training_minutes
    short, pays = bytes_there < total, trainings * each > selection_minutes
    room = f"The images take {in_bytes(total)}, and there is room for {in_bytes(bytes_there)}"
    what = (
        "re-encode them, quantize(images, bytes=...) chooses how many and how well (notebook 11 measures what it costs)"
    )
    reasons = [f"{room}: {what if short else 'bytes are no reason to leave anything out'}."]
    if fixed_steps:
        reasons.append("With a fixed number of steps a subset trains as long as everything: selecting saves no time.")
    else:
        since = f"from training {int(selection_minutes // each) + 1} on" if each else "never"
        reasons += [
            f"Keeping {100 * ratio:g} % saves {each:g} minutes per training and costs {selection_minutes:g} once: it "
            f"pays {since}; you plan {trainings}.",
            "Selecting costs accuracy, too: measure how much, beside as many random images.",
        ]
    if not labeled:
        reasons.append(
            "Labels that have to be bought are a budget of their own: select before you label, with "
            "DQAS(labels='expected', counts=FreeCounts()), and compare with random images."
        )
    return Advice(LEVERS[short, pays], tuple(reasons))
