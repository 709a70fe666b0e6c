"""One batch of inputs of one target, in a process that the command starts.

    python -m fuzz.child TARGET FIRST COUNT FOLDER

Prints the number of each input before it is read, then whether it was read or refused. The first fault ends
the process: it is printed, or it is the signal that kills the process.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import sys
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path

from dim.errors import DimError
from dim_runtime.memory import peak_resident_bytes
from fuzz.targets import TARGETS, Target, inputs_beside, read_quietly

CPU_SECONDS = 5
"""Processor time of one input, of all threads together; SIGPROF kills the process after it. Time that other
programs take does not count."""
MEMORY_BYTES = 300 * 10**6
"""Peak of the resident memory above the one at the start."""
LONGEST_TEXT = 3000
"""Characters of a traceback."""
ADDRESS_SPACE_BYTES = 8 << 30
"""Address space beyond the one at the start: protects the machine that runs the harness."""


def make_input(name: str, number: int) -> tuple[str, bytes]:
    """Return name and content of an input: the valid files come first, then mutations of them."""
    files = _files(name)
    if number < len(files):
        return files[number]
    draw = random.Random(f"{name} {number}")
    file_name, content = draw.choice(files)
    return file_name, TARGETS[name].mutate(draw, content)


@cache
def _files(name: str) -> list[tuple[str, bytes]]:
    return sorted(TARGETS[name].seeds().items())


def main() -> None:
    """Read the batch that the command line names."""
    name, first, count, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    target = TARGETS[name]
    inputs_beside(target, folder)
    _warm_up(target, folder)
    start = _begin_of_memory()
    for number in range(first, first + count):
        file_name, content = make_input(name, number)
        _say("begin", number=number, file=file_name)
        fault, outcome = examine(target, folder / file_name, content, start)
        if fault is not None:
            _say("fault", number=number, file=file_name, text=fault)
            return
        _say(outcome)


def examine(target: Target, path: Path, content: bytes, start_bytes: int) -> tuple[str | None, str]:
    """Read one input. Return the fault, if there is one, and "read" or "refused"."""
    kept = {entry.name for entry in path.parent.iterdir()} | {path.name}
    path.write_bytes(content)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        read_quietly(target, path)
        outcome = "read"
    except DimError:
        outcome = "refused"
    except Exception:
        return traceback.format_exc(limit=-6)[:LONGEST_TEXT], "raised"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    left = {entry.name for entry in path.parent.iterdir()} - kept
    if left:
        return f"files are left: {', '.join(sorted(left))}", outcome
    above = peak_resident_bytes() - start_bytes
    if above > MEMORY_BYTES:
        return f"resident memory rose by {above / 1e6:.0f} MB", outcome
    if path.name not in target.beside():
        path.unlink()
    else:
        inputs_beside(target, path.parent)
    return None, outcome


def _warm_up(target: Target, folder: Path) -> None:
    """Import what the reader needs, and let its first calls take their memory."""
    for name, content in target.seeds().items():
        path = folder / name
        path.write_bytes(content)
        # Refused and faulty ones are counted with the inputs, of which the valid files are the first.
        with suppress(Exception):
            read_quietly(target, path)
        path.unlink()
    inputs_beside(target, folder)


def _begin_of_memory() -> int:
    """Limit the address space, forget the peak so far, and return the resident memory, bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE_BYTES,) * 2)
    return peak_resident_bytes()


def _say(kind: str, **details: object) -> None:
    print(json.dumps({"kind": kind, **details}), flush=True)


if __name__ == "__main__":
    main()
