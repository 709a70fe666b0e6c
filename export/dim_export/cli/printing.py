"""Print measurements and the contents of artefacts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from dim.contract import ArtefactMetadata
    from dim_export.bench.checkpoint import WindowBench
    from dim_export.inspection import CheckpointInspection, Inspection
    from dim_export.parity.gates import Judgement
    from dim_export.parity.other_tools import ToolResult
    from dim_export.parity.report import ReleaseReport
    from dim_export.parity.result import CaseResult, ParityReport


LEGEND = (
    "> 1/255, mean, max: difference of alpha from PyTorch over unknown pixels; SAD: their sum / 1000; "
    "pooling: 2×2 pools whose maximum is another pixel. The tie image is full of ties, which "
    "engines may break differently: only its own gate judges it. The rows onnxslim and OpenVINO fp16 "
    "compare the artefact with itself, after that tool has rewritten it."
)


_MEGAPIXEL = 1024 * 1024
"""Pixels of the image for which the work of a checkpoint is printed."""


def print_parity(report: ParityReport, console: Console) -> None:
    """Print the cases as a table with a legend, then the gates, then the verdict."""
    console.print(Text(f"{report.artefact} against {report.checkpoint}", style="bold"))
    console.print(f"{report.precision}, run by {report.engine} on {report.device}", highlight=False)
    if not report.same_checkpoint:
        console.print("the artefact's metadata names another checkpoint", style="yellow")
    console.print(_case_table(report))
    for name in report.left_out:
        console.print(f"left out: {name} does not fit the frozen shape", highlight=False, soft_wrap=True)
    for tool in report.tools:
        if tool.skipped:
            console.print(f"skipped: {tool.tool}: {tool.skipped}", highlight=False, soft_wrap=True)
    console.print(LEGEND, style="dim", highlight=False, soft_wrap=True)
    for line in _gate_lines(report):
        console.print(line, soft_wrap=True)


def print_release(report: ReleaseReport, console: Console) -> None:
    """Print the cases and gates of every artefact, then size and speed side by side."""
    for artefact in report.artefacts:
        print_parity(artefact.parity, console)
        console.print()
    for row in report.rounding:
        console.print(
            f"PyTorch fp32 against fp64, {row.name}: {_percent(row.share_beyond)} beyond 1/255, "
            f"mean {row.mean_difference:.1e}",
            highlight=False,
            soft_wrap=True,
        )
    console.print(_artefact_table(report))


def _artefact_table(report: ReleaseReport) -> Table:
    table = Table(box=None, padding=(0, 1))
    table.add_column("artefact", overflow="fold")
    for name in ("precision", "MB", "window", "p50", "speed", "SAD shift", "gates"):
        table.add_column(name, no_wrap=True)
    for artefact in report.artefacts:
        parity, speed = artefact.parity, artefact.speed
        table.add_row(
            parity.artefact,
            parity.precision,
            f"{artefact.bytes / 1e6:.2f}",
            "-" if speed is None else f"{speed.width}×{speed.height}",
            "-" if speed is None else f"{speed.p50_s:.3f} s",
            "-" if speed is None else f"{speed.times_faster:.2f} ×",
            "-" if parity.sad_shift is None else f"{parity.sad_shift:+.2%}",
            Text("passed", "green") if parity.passed else Text("FAILED", "red"),
        )
    return table


def _case_table(report: ParityReport) -> Table:
    # Narrow enough for a terminal of 80 columns.
    table = Table(
        "case", "size", "windows", "> 1/255", "mean", "max", "SAD", "pooling", box=None, padding=(0, 1)
    )
    for column in table.columns[2:]:
        column.justify = "right"
    for case in report.cases:
        table.add_row(*_case_row(case))
    for tool in report.tools:
        table.add_row(*_tool_row(tool))
    return table


def _case_row(case: CaseResult) -> list[str]:
    return [
        case.name,
        f"{case.width}×{case.height}",
        str(case.windows),
        _percent(case.share_beyond),
        f"{case.mean_difference:.1e}",
        f"{case.max_difference:.1e}",
        f"{case.sad:.4f}",
        "-" if case.pooling is None else str(case.pooling.different),
    ]


def _tool_row(tool: ToolResult) -> list[str]:
    if tool.difference is None:
        return [tool.tool, "-", "skipped" if tool.skipped else "error", *["-"] * 5]
    found = tool.difference
    return [
        tool.tool,
        f"{tool.width}×{tool.height}",
        "1",
        _percent(found.share_beyond),
        f"{found.mean_difference:.1e}",
        f"{found.max_difference:.1e}",
        f"{found.sad:.4f}",
        "-",
    ]


def _percent(share: float) -> str:
    return "NaN" if math.isnan(share) else f"{share:.3%}"


def _gate_lines(report: ParityReport) -> Iterator[RenderableType]:
    yield from map(_gate_line, report.judgements)
    if report.nan_pixels:
        yield Text(f"FAIL  {report.nan_pixels} unknown pixels are NaN", "red")
    for tool in report.tools:
        if tool.error:
            yield Text(f"FAIL  {tool.tool} does not accept the file: {tool.error}", "red")
    for name in report.not_finite:
        yield Text(f"FAIL  NaN or infinite values in the tensor {name}", "red")
    if report.passed:
        yield Text("passed: it computes what its checkpoint computes, within all gates", "green")
    else:
        yield Text("FAILED: it differs from its checkpoint by more than a gate admits", "red")


def _gate_line(judgement: Judgement) -> Text:
    if judgement.found is None:
        return Text("not measured  ") + Text(judgement.label)
    word, colour = ("ok    ", "green") if judgement.passed else ("FAIL  ", "red")
    found, limit = judgement.show(judgement.found), judgement.show(judgement.limit)
    return Text(word, colour) + Text(f"{judgement.label}: {found}, at most {limit}", "default")


def print_bench(result: WindowBench, console: Console) -> None:
    """Print the medians of both engines, and their ratio."""
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
    """Print all facts about an artefact, one a line, and its number of nodes of each operator."""
    for name, value in _facts(found):
        console.print(Text(f"{name:<17} ", style="bold") + Text(value, style="not bold"))
    console.print(Text(f"{found.nodes} nodes", style="bold"))
    for operator, count in found.operators.items():
        console.print(f"{count:>5}  {operator}")


def print_checkpoint(found: CheckpointInspection, console: Console) -> None:
    """Print network, parameters, multiply-adds and origin of a checkpoint, one fact a line."""
    network, work = found.network, found.multiply_adds_per_pixel
    norm = ", batch norm" if network.batch_norm else ""
    facts = [
        ("file", f"{found.path}, {found.bytes / 1e6:.2f} MB"),
        ("network", f"DIM stage {network.stage}, width {network.width:g}{norm}{network.additions}"),
        ("parameters", f"{found.parameters:,}"),
        ("work", f"{work:,} multiply-adds per pixel, {work * _MEGAPIXEL / 1e9:.1f} billion for 1024×1024 px"),
        *found.provenance.items(),
    ]
    for name, value in facts:
        console.print(Text(f"{name:<17} ", style="bold") + Text(value, style="not bold"))


def _quantisation_facts(data: ArtefactMetadata) -> list[tuple[str, str]]:
    about = data.quantisation
    if about is None:
        return []
    pairs = f"{about.method}, {about.windows} windows, pairs: {about.calibration}"
    return [("calibration", pairs), ("kept in float", ", ".join(about.keep_float) or "nothing")]


def _facts(found: Inspection) -> list[tuple[str, str]]:
    data = found.metadata
    network = data.network
    norm = ", batch norm folded" if network.batch_norm else ""
    shape = "N, H, W free" if data.static_shape is None else f"N, H, W = {data.static_shape}"
    return [
        ("file", f"{found.path}, {found.bytes / 1e6:.2f} MB, {found.format}"),
        *(("input", str(tensor)) for tensor in found.inputs),
        *(("output", str(tensor)) for tensor in found.outputs),
        (
            "network",
            f"DIM stage {network.stage}, width {network.width:g}{norm}{network.additions}, "
            f"{data.parameters:,} parameters",
        ),
        ("work", f"{data.multiply_adds_per_pixel:,} multiply-adds per pixel"),
        ("precision", f"{data.precision}, {shape}, sides multiples of {data.stride} px"),
        *_quantisation_facts(data),
        ("context", f"{data.context} px for exact tiling"),
        ("trimap", data.trimap_encoding),
        ("checkpoint", f"sha256 {data.checkpoint_sha256}"),
        *((f"  {name}", value) for name, value in data.provenance.items()),
        ("made with", ", ".join(f"{name} {version}" for name, version in data.versions.items())),
        ("readable by", found.readers),
        ("command", data.command),
    ]
