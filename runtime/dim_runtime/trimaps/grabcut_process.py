"""GrabCut in a child process, which can be ended: OpenCV does not stop, and takes minutes for noise."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from dim.arrays import Bool, UInt8
from dim.errors import InputError
from dim_runtime.errors import BackendError
from dim_runtime.memory import release_free_memory
from dim_runtime.trimaps.grabcut import Marks, segmented

LOOK_SECONDS = 0.1
"""Seconds between two looks whether the work shall end."""
PARENT_SECONDS = 1.0
"""Seconds between two looks of the child process whether its parent is there."""
REFUSED = 3
"""Exit code of the child process if it writes an error in place of a result."""
PARTS = ("problem", "got", "expected", "why", "fix")


def segmented_apart(
    small: UInt8, marks: Marks, mask: UInt8 | None, *, boxed: bool, check: Callable[[], object]
) -> list[Bool]:
    """Return what :func:`~dim_runtime.trimaps.grabcut.segmented` does; start-up adds about half a second.

    Args:
        small, marks, mask, boxed: as there.
        check: called while the work runs; its error ends the work at once.

    Raises:
        InputError: as there.
        BackendError: the process was ended by something else, such as a lack of memory.
    """
    planes = marks._asdict() if mask is None else marks._asdict() | {"mask": mask}
    request = io.BytesIO()
    np.savez(request, small=small, boxed=np.array(boxed), **planes)
    # What can be imported here can be there. Keys of a terminal are for the parent.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    child = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    with child, ThreadPoolExecutor(1) as pool:
        try:
            written = _waited(pool.submit(child.communicate, request.getvalue()), check)
        finally:
            child.kill()
    # Each call has a thread, whose freed memory the C library would keep: 771 MB for 455 in `make hostile`.
    release_free_memory()
    if child.returncode == REFUSED:
        raise InputError(**json.loads(written))
    if child.returncode:
        raise BackendError("cannot find the object", why=f"GrabCut's process ended with {child.returncode}")
    return list(np.load(io.BytesIO(written))["found"])


def _waited(streams: Future[tuple[bytes, bytes]], check: Callable[[], object]) -> bytes:
    """Return what the child process has written when it ends."""
    while True:
        check()
        try:
            return streams.result(LOOK_SECONDS)[0]
        except TimeoutError:
            continue


def main() -> None:
    """Read arrays from standard input, and write the result or an error to standard output."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    given = np.load(io.BytesIO(sys.stdin.buffer.read()))
    marks = Marks(*(given[name] for name in Marks._fields))
    mask = dict(given).get("mask")
    try:
        found = segmented(given["small"], marks, mask, boxed=bool(given["boxed"]))
    except InputError as error:
        parts = {name: getattr(error, name) for name in PARTS}
        print(json.dumps({name: part if part is None else str(part) for name, part in parts.items()}))
        sys.exit(REFUSED)
    result = io.BytesIO()
    np.savez(result, found=np.stack(found))
    sys.stdout.buffer.write(result.getvalue())


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, which another process then takes the place of."""
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
