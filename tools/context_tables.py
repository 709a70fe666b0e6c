"""Write the tables of docs/performance.md that show what a smaller context costs.

    python tools/context_tables.py PHOTOS --trimaps TRIMAPS

PHOTOS holds images/, trimaps/ and alphas/; TRIMAPS holds trimaps of full size, which are only planned for.
The numbers are those of ``dim-export context``; each table replaces the one between its marks there.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from dim.contract.layers import network_context
from dim.files import write_text
from dim_export.bench.context import ContextRow, measure, read_trimaps
from dim_runtime.images.pairs import read_samples
from dim_runtime.planning.planner import Tile

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
TILES: tuple[Tile, ...] = ("auto", 416)
"""The default tile, and the smallest one that exact mode allows for the embedded model."""
RECOMMENDED = 64
"""The context of the speed mode, in bold."""


def table(rows: Sequence[ContextRow], exact_context: int) -> str:
    """Return the rows as a Markdown table; the cost is the planned one where there is one."""
    planned = rows[0].planned_cost is not None
    cost_column = "cost at full size" if planned else "cost"
    lines = [
        f"| context | {cost_column} | mean difference | largest | SAD | shift |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        context = f"exact ({exact_context})" if row.context is None else str(row.context)
        cost = f"{row.planned_cost:.3f}" if row.planned_cost is not None else f"{row.cost:.2f}"
        if row.context == RECOMMENDED and planned:
            context, cost = f"**{context}**", f"**{cost}**"
        difference = f"{row.difference:.1e}" if row.difference else "0"
        largest = f"{row.largest:.3f}" if row.largest else "0"
        sad = "" if row.sad is None else f"{row.sad:.3f}"
        lines.append(f"| {context} | {cost} | {difference} | {largest} | {sad} | {_shift(row, rows[0])} |")
    return "\n".join(lines)


def _shift(row: ContextRow, exact: ContextRow) -> str:
    if row.context is None or row.sad is None or not exact.sad:
        return ""
    percent = round(100 * (row.sad / exact.sad - 1), 2) + 0.0  # adding 0 makes -0 positive
    return f"{percent:+.2f} %".replace("-", "−") if percent else "0.00 %"


def replaced(text: str, mark: str, new: str) -> str:
    """Return ``text`` with the table between ``<!-- table: MARK -->`` and the next end replaced.

    Raises:
        ValueError: without exactly one such mark.
    """
    pattern = re.compile(rf"(<!-- table: {re.escape(mark)} -->\n).*?(<!-- end of table -->)", re.DOTALL)
    changed, count = pattern.subn(lambda match: f"{match[1]}{new}\n{match[2]}", text)
    if count != 1:
        raise ValueError(f"{count} tables are marked {mark}, expected 1")
    return changed


def main() -> None:
    """Measure with each tile, and write the document once, at the end."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--trimaps", type=Path, required=True)
    given = parser.parse_args()
    from dim_runtime.artefacts.onnx_file import read_metadata
    from dim_runtime.backends.open import default_model

    scenes, trimaps = list(read_samples(given.photos)), read_trimaps(given.trimaps)
    context = network_context(read_metadata(default_model()).network)
    tables = {}
    for tile in TILES:
        rows = measure(None, scenes, trimaps=trimaps if tile == TILES[0] else [], tile=tile)
        tables[str(tile)] = table(rows, context)
    # Read only now: the document may have been edited in the minutes of the measurement.
    text = DOCUMENT.read_text("utf-8")
    for mark, new in tables.items():
        text = replaced(text, mark, new)
    write_text(DOCUMENT, text)
    print(DOCUMENT)


if __name__ == "__main__":
    main()
