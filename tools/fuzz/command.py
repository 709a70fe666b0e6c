"""Fuzz every reader of files and responses, in child processes with limits.

    make fuzz                                       20 000 inputs over all targets
    make fuzz FUZZ="--inputs 100000"                more; goes on where an earlier run stopped
    make fuzz FUZZ="--target pickle --inputs 5000"
    make fuzz FUZZ="--repeat pickle 1234"           one input again, in this process
    make fuzz FUZZ="--file pickle PATH"             a saved file

Inputs are mutations of valid files. A target and a number give the same input on every machine. A fault is an
exception of another kind than DimError, a crash, more than 5 s of processor time, more than 300 MB of memory
above the start, or a file that is left. Faults are saved in the output folder, and printed with the command
that repeats them. The exit code is 1 if there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dim.files import write_bytes, write_text
from fuzz.child import CPU_SECONDS, make_input
from fuzz.targets import TARGETS, inputs_beside, read_quietly

CHILD = ["-m", "fuzz.child"]
"""Arguments of Python for a child process."""
BLOCKED_SECONDS = 1800
"""Time after which a batch is ended that waits without computing."""


@dataclass
class Fault:
    """One input that breaks a promise."""

    target: str
    number: int
    file: str
    text: str


@dataclass
class Count:
    """Inputs of one target so far."""

    done: int = 0
    read: int = 0
    refused: int = 0
    faults: list[Fault] = field(default_factory=list)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    if options.repeat:
        return _again(options.repeat[0], *make_input(options.repeat[0], int(options.repeat[1])))
    if options.file:
        return _again(options.file[0], Path(options.file[1]).name, Path(options.file[1]).read_bytes())
    names = options.target or list(TARGETS)
    counts = run(names, -(-options.inputs // len(names)), options.output, piece=options.piece)
    return report({name: counts[name] for name in names}, options.output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=20_000, help="of all targets together; rounded up")
    parser.add_argument(
        "--target", action="append", choices=list(TARGETS), help="can be repeated; default: all"
    )
    parser.add_argument("--output", type=Path, default=Path("out/fuzz"), help="folder of counts and faults")
    parser.add_argument("--piece", type=int, default=500, help="inputs of one child process")
    parser.add_argument("--repeat", nargs=2, metavar=("TARGET", "NUMBER"))
    parser.add_argument("--file", nargs=2, metavar=("TARGET", "PATH"))
    return parser


def run(names: list[str], inputs: int, output: Path, *, piece: int) -> dict[str, Count]:
    """Run so many inputs of each target, in turns; what is done in this folder already is left out."""
    counts = _progress(output)
    while open_names := [name for name in names if counts[name].done < inputs]:
        for name in open_names:
            count = counts[name]
            run_piece(name, count, min(piece, inputs - count.done), output)
            text = json.dumps({name: asdict(count) for name, count in counts.items()}, indent=1)
            write_text(output / "progress.json", text)
    return counts


def _progress(output: Path) -> dict[str, Count]:
    output.mkdir(parents=True, exist_ok=True)
    path = output / "progress.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    counts = {name: Count() for name in TARGETS}
    for name, values in found.items():
        counts[name] = Count(**{**values, "faults": [Fault(**fault) for fault in values["faults"]]})
    return counts


def run_piece(name: str, count: Count, inputs: int, output: Path) -> None:
    """Run the next inputs of one target; a child that ends early is followed by another one."""
    end = count.done + inputs
    while count.done < end:
        fault = None
        begun: dict[str, Any] = {}
        for line in _child(name, count.done, end - count.done):
            if line["kind"] == "begin":
                begun = line
                continue
            count.done += 1
            if line["kind"] in ("read", "refused"):
                setattr(count, line["kind"], getattr(count, line["kind"]) + 1)
            elif line["kind"] == "fault":
                fault = Fault(name, line["number"], line["file"], line["text"])
            elif not begun:
                raise RuntimeError(f"the child process for {name} does not start: {line['text']}")
            else:
                fault = Fault(name, begun["number"], begun["file"], line["text"])
        if fault is not None:
            count.faults.append(fault)
            _save(fault, output)


def _child(name: str, first: int, inputs: int) -> Iterator[dict[str, Any]]:
    """Yield the lines of a child process; at its end a line "died" if it did not end by itself."""
    here = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *CHILD, name, str(first), str(inputs), folder]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, timeout=BLOCKED_SECONDS, check=False
            )
            output, code, errors = done.stdout, done.returncode, done.stderr
        except subprocess.TimeoutExpired as error:
            output = (error.stdout or b"").decode()
            code, errors = -signal.SIGALRM, "it waits without computing"
    for line in output.splitlines():
        if line.startswith('{"kind"'):
            yield json.loads(line)
    if code:
        yield {"kind": "died", "text": _reason(code, errors)}


def _reason(code: int, errors: str) -> str:
    if code == -signal.SIGPROF:
        return f"more than {CPU_SECONDS} s of processor time"
    what = f"killed by signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"{what}\n{errors[-2000:]}"


def _save(fault: Fault, output: Path) -> None:
    name, content = make_input(fault.target, fault.number)
    path = output / "faults" / f"{fault.target}-{fault.number}-{name}"
    path.parent.mkdir(exist_ok=True)
    write_bytes(path, content)
    print(f"{fault.target} {fault.number}: {fault.text}\n  saved: {path}")
    print(f'  again: make fuzz FUZZ="--repeat {fault.target} {fault.number}"', flush=True)


def _again(name: str, file_name: str, content: bytes) -> int:
    """Read one input in this process, so that its traceback is whole."""
    with tempfile.TemporaryDirectory() as folder:
        inputs_beside(TARGETS[name], Path(folder))
        path = Path(folder) / file_name
        path.write_bytes(content)
        read_quietly(TARGETS[name], path)
    return 0


def report(counts: dict[str, Count], output: Path) -> int:
    """Print the figures of each target; return the exit code."""
    print(f"{'target':12} {'inputs':>8} {'read':>8} {'refused':>8} {'faults':>7}")
    rows = [*counts.items(), ("all", _sum(list(counts.values())))]
    for name, count in rows:
        print(f"{name:12} {count.done:8} {count.read:8} {count.refused:8} {len(count.faults):7}")
    if rows[-1][1].faults:
        print(f"the faults are in {output / 'faults'}")
    return 1 if rows[-1][1].faults else 0


def _sum(counts: list[Count]) -> Count:
    total = Count()
    for count in counts:
        total.done, total.read = total.done + count.done, total.read + count.read
        total.refused += count.refused
        total.faults += count.faults
    return total
