"""Requests to stop a run: SIGINT and SIGTERM are noted, so that the loop saves its state before it ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """The first SIGINT or SIGTERM since :meth:`noted` began.

    Attributes:
        signal: the signal; None before it.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._handlers: dict[signal.Signals, signal._HANDLER] = {}

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the signals inside the block instead of ending; a second one acts as it did before.

        Python handles signals in its main thread alone: in another thread nothing is noted.
        """
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            self._restore()

    def end(self) -> NoReturn:
        """Raise what ends a process after the signal: KeyboardInterrupt, or SystemExit with 128 + SIGTERM.

        A process that has no signal of its own ends as after SIGTERM: another process of its run had one.
        """
        if self.signal is signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            # None stands for a handler that Python did not install and cannot install again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._handlers = {}
