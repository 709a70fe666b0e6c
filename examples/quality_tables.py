"""Results as Markdown tables: scores, time and memory, and SAD photograph by photograph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from quality_methods import CLOSED_FORM, INT8, KNN, LEARNING_BASED, OURS, REFERENCE
from quality_process import Result

from dim.metrics import Metrics

Results = Mapping[str, Mapping[str, Result]]
"""By method, then by photograph."""

COLUMNS = (OURS, INT8, CLOSED_FORM, KNN, LEARNING_BASED)
"""Methods that the table of photographs shows, where they were measured."""


def scores(narrow: Results, wide: Results) -> str:
    """Show means over the photographs; the shift is of the narrow trimap's SAD."""
    header = [
        "",
        "SAD",
        "MSE",
        "GRAD",
        "CONN",
        f"SAD against {REFERENCE}",
        *(["SAD, wide trimap"] if wide else []),
    ]
    rows = []
    for name, found in narrow.items():
        sad, mse, grad, conn = means(found)
        around = [f"{means(wide[name]).sad:.2f}" if name in wide else ""] if wide else []
        cells = [f"{sad:.2f}", f"{mse:.4f}", f"{grad:.2f}", f"{conn:.2f}"]
        rows.append([name, *cells, _shift(name, narrow), *around])
    return markdown(header, rows)


def costs(narrow: Results) -> str:
    """Show mean seconds, seconds for all over megapixels of all, largest peaks."""
    header = [
        "", "s for each image", "s for each megapixel", "the first time", "memory, MB", "whole process, MB"
    ]  # fmt: skip
    rows = []
    for name, found in narrow.items():
        results = list(found.values())
        megapixels = sum(result.megapixels for result in results)
        seconds = sum(result.p50_s for result in results)
        first = sum(result.first_s for result in results) / megapixels
        own, peak = (max(sizes) / 1e6 for sizes in zip(*map(_sizes, results), strict=True))
        times = [f"{value:.2f}" for value in (seconds / len(results), seconds / megapixels, first)]
        rows.append([name, *times, f"{own:.0f}", f"{peak:.0f}"])
    return markdown(header, rows)


def photographs(narrow: Results) -> str:
    """Show SAD of each photograph, ours minus closed form's ("excess"), and means."""
    shown = [name for name in COLUMNS if name in narrow]
    compared = OURS in shown and CLOSED_FORM in shown
    header = ["photograph", *shown, *(["excess"] if compared else [])]
    names = list(next(iter(narrow.values())))
    rows = []
    for label, chosen in [*((name, [name]) for name in names), ("mean", names)]:
        sads = {name: means({key: narrow[name][key] for key in chosen}).sad for name in shown}
        excess = [f"{sads[OURS] - sads[CLOSED_FORM]:+.2f}"] if compared else []
        rows.append([label, *(f"{sad:.2f}" for sad in sads.values()), *excess])
    return markdown(header, rows)


def verdict(narrow: Results) -> str:
    """Write one sentence: where ours is better than closed form, and where it loses most."""
    differences = excesses(narrow)
    better = sum(value < 0 for value in differences.values())
    worst = next(iter(differences))
    return (
        f"SAD is lower than closed form's on {better} of {len(differences)} photographs; "
        f"the largest excess is {differences[worst]:+.2f} ({worst})."
    )


def excesses(narrow: Results) -> dict[str, float]:
    """Return SAD of ours minus closed form's for each photograph, the largest first."""
    ours, theirs = narrow[OURS], narrow[CLOSED_FORM]
    found = {name: means({name: ours[name]}).sad - means({name: theirs[name]}).sad for name in ours}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def means(found: Mapping[str, Result]) -> Metrics:
    """Return the unweighted mean over results that have a truth."""
    return Metrics(*np.mean([result.metrics or () for result in found.values()], axis=0).tolist())


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table, without an end of line after it."""
    lines = [[f" {cell} " if cell else " " for cell in line] for line in (header, *rows)]
    return "\n".join("|" + "|".join(line) + "|" for line in (lines[0], ["---"] * len(header), *lines[1:]))


def _shift(name: str, narrow: Results) -> str:
    """Return the shift of the same weights in another engine or precision; empty for other methods."""
    if name == REFERENCE or REFERENCE not in narrow or not name.startswith(("ONNX Runtime", "OpenVINO")):
        return ""
    percent = 100 * (means(narrow[name]).sad / means(narrow[REFERENCE]).sad - 1)
    return f"{round(percent, 2) + 0.0:+.2f} %"  # adding 0 makes -0 positive


def _sizes(result: Result) -> tuple[int, int]:
    return result.own_bytes, result.peak_bytes
