"""Which seeds a data set may be rendered from: seeds of tests are kept out of training."""

from __future__ import annotations

import re

from dim.errors import InputError

EARLIER_SEEDS = range(1_000)
"""Seeds of images that an earlier generator made: their numbers are taken."""
TRAINING_SEEDS = range(1_000, 900_000)
"""Seeds of images for training."""
HELD_OUT_SEEDS = range(900_000, 1_000_000)
"""Seeds of images for validation and tests; no network is trained on them."""


def parse_seeds(text: str, *, held_out: bool) -> range:
    """Return the seeds of ``FIRST:END``; END is not included.

    Args:
        held_out: render held-out seeds instead of seeds for training.

    Raises:
        InputError: not two numbers, none between them, or seeds of the other kind.
    """
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
    seeds = range(int(found[1]), int(found[2])) if found else range(0)
    if not seeds:
        raise InputError("cannot read the seeds", got=repr(text), expected="FIRST:END, such as 20000:20100")
    allowed = HELD_OUT_SEEDS if held_out else TRAINING_SEEDS
    if seeds.start < allowed.start or seeds.stop > allowed.stop:
        raise InputError(
            "cannot render these seeds" + (" as held out" if held_out else " for training"),
            got=text,
            expected=f"numbers from {allowed.start} to {allowed.stop}",
            why=f"{EARLIER_SEEDS.stop - 1} and less are taken; {HELD_OUT_SEEDS.start} and up are held out",
            fix=None if held_out else "for a validation or test set, add --held-out",
        )
    return seeds
