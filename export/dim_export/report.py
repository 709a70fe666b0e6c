"""Printing what was measured and what is inside a file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from dim_export.inspection import Inspection
    from dim_export.parity import CaseResult, ParityReport
    from dim_export.window_bench import WindowBench


def print_parity(report: ParityReport, console: Console) -> None:
    """The cases as a table, and below it the gates."""
    console.print(Text(f"{report.artefact} against {report.checkpoint}", style="bold"))
    if not report.same_checkpoint:
        console.print("the artefact says that it was made from another checkpoint", style="yellow")
    console.print(_case_table(report))
    for line in _gate_lines(report):
        console.print(line, soft_wrap=True)


def _case_table(report: ParityReport) -> Table:
    # Narrow enough for a terminal of 80 columns.
    table = Table(
        "case", "size", "windows", "unknown", "> 1/255", "mean", "max", "SAD", box=None, padding=(0, 1)
    )
    for column in table.columns[2:]:
        column.justify = "right"
    for case in report.cases:
        table.add_row(*_case_row(case))
    return table


def _case_row(case: CaseResult) -> list[str]:
    return [
        case.name,
        f"{case.width}×{case.height}",
        str(case.windows),
        str(case.unknown_pixels),
        _percent(case.share_beyond),
        f"{case.mean_difference:.1e}",
        f"{case.max_difference:.1e}",
        f"{case.sad:.4f}",
    ]


def _percent(share: float) -> str:
    return "NaN" if math.isnan(share) else f"{share:.3%}"


def _gate_lines(report: ParityReport) -> list[RenderableType]:
    gates = report.gates
    rows = [
        ("unknown pixels beyond 1/255", report.mean_share_beyond, gates.share_beyond),
        (
            "SAD of the difference / (unknown / 1000)",
            report.mean_sad_share,
            gates.sad_share,
        ),
    ]
    lines: list[RenderableType] = [
        Text(f"{'ok  ' if found <= allowed else 'FAIL'}  ", "green" if found <= allowed else "red")
        + Text(f"{name}: {_percent(found)} on average, at most {allowed:.3%}", "default")
        for name, found, allowed in rows
    ]
    if report.nan_pixels:
        lines.append(Text(f"FAIL  {report.nan_pixels} unknown pixels are NaN", "red"))
    return lines


def print_bench(result: WindowBench, console: Console) -> None:
    """Medians of both engines, and their ratio."""
    table = Table("engine", "median", "GFLOP/s", "runs")
    for name, median, runs in (
        ("PyTorch eager, channels_last", result.torch_p50_s, result.torch_s),
        ("ONNX Runtime", result.onnxruntime_p50_s, result.onnxruntime_s),
    ):
        each = " ".join(f"{seconds:.3f}" for seconds in runs)
        table.add_row(name, f"{median:.3f} s", f"{result.gflop / median:.0f}", each)
    console.print(table)
    console.print(
        f"one window of {result.size}×{result.size} px, {result.gflop:.1f} GFLOP, {result.threads} threads; "
        f"ONNX Runtime is {result.ratio:.2f} × as fast as PyTorch (median of pairs)",
        soft_wrap=True,
    )


def print_inspection(found: Inspection, console: Console) -> None:
    """Everything about an artefact, one fact a line, and how many nodes it has of each operator."""
    for name, value in _facts(found):
        console.print(Text(f"{name:<17} ", style="bold") + Text(value, style="not bold"))
    console.print(Text(f"{found.nodes} nodes", style="bold"))
    for operator, count in found.operators.items():
        console.print(f"{count:>5}  {operator}")


def _facts(found: Inspection) -> list[tuple[str, str]]:
    data = found.metadata
    network = data.network
    norm = ", batch norm folded" if network.batch_norm else ""
    shape = "N, H, W free" if data.static_shape is None else f"N, H, W = {data.static_shape}"
    return [
        ("file", f"{found.path}, {found.bytes / 1e6:.2f} MB, opset {found.opset}, IR {found.ir_version}"),
        *(("input", str(tensor)) for tensor in found.inputs),
        *(("output", str(tensor)) for tensor in found.outputs),
        (
            "network",
            f"DIM stage {network.stage}, width {network.width:g}{norm}, {data.parameters:,} parameters",
        ),
        ("work", f"{data.multiply_adds_per_pixel:,} multiply-adds per pixel"),
        ("precision", f"{data.precision}, {shape}, sides multiples of {data.stride} px"),
        ("context", f"{data.context} px for exact tiling"),
        ("trimap", data.trimap_encoding),
        ("checkpoint", f"sha256 {data.checkpoint_sha256}"),
        *((f"  {name}", value) for name, value in data.provenance.items()),
        ("made with", ", ".join(f"{name} {version}" for name, version in data.versions.items())),
        (
            "readable by",
            ", ".join(f"{name} {version} or newer" for name, version in data.oldest_readers.items()),
        ),
        ("command", data.command),
    ]
