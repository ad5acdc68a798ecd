"""Worker processes: each takes runs one after the other and answers with rows."""

import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

import torch

from f3eo.bench.run.row import Row, failed, record
from f3eo.bench.run.run import Run

_CONTEXT = get_context("spawn")  # a forked torch may hang on its threads


class Update(NamedTuple):
    """News of a run: the share that is done, in [0, 1], and its row once it has ended."""

    worker: int
    run: Run
    share: float
    row: Row | None = None


def execute(runs: Iterable[Run], workers: int = 2, deadline: float = math.inf) -> Generator[Update]:
    """Carry out runs in parallel, each worker with one torch thread.

    Closing the iterator, as an exception does, ends the workers. A worker that dies gives a row
    with its error, and another takes its place.

    Args:
        runs: what to train, in this order.
        workers: processes; default 2.
        deadline: time, on `time.monotonic`, from which no further run is begun; default never.

    Yields:
        News as they come: one with share 0 at the start of each run, one with its row at its end.
    """
    pending = deque(runs)
    team = [_Worker(number) for number in range(min(workers, len(pending)))]
    try:
        while pending or any(worker.run for worker in team):
            if time.monotonic() >= deadline:
                pending.clear()
            for worker in team:
                if worker.run is None and pending:
                    yield worker.give(pending.popleft())
            busy = {worker.connection: worker for worker in team if worker.run}
            for connection in wait(list(busy)) if busy else ():
                yield busy[connection].news()  # type: ignore[index]
    finally:
        for worker in team:
            worker.end()


class _Worker:
    """One process and the parent's end of the pipe to it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.run: Run | None = None
        self._start()

    def give(self, run: Run) -> Update:
        self.run = run
        with suppress(OSError):  # it died while it had nothing to do: news() will tell
            self.connection.send(run)
        return Update(self.number, run, 0.0)

    def news(self) -> Update:
        run = self.run
        assert run is not None
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            self.end()
            self._start()
            answer = failed(run, f"the worker process died with exit code {code}")
        if isinstance(answer, float):
            return Update(self.number, run, answer)
        self.run = None
        return Update(self.number, run, 1.0, answer)

    def end(self) -> None:
        self.process.terminate()
        self.process.join()
        self.connection.close()

    def _start(self) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(theirs,), daemon=True)
        with _interrupt_ignored():
            self.process.start()
        theirs.close()  # so that the worker's death is an end of file here


def _serve(connection: Connection) -> None:
    """A worker's life: it ends with its parent, whose end of the pipe then closes."""
    torch.set_num_threads(1)
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no processes of its own, left behind
    try:
        while True:
            connection.send(record(connection.recv(), connection.send))
    except (EOFError, OSError):
        return


@contextmanager
def _interrupt_ignored() -> Iterator[None]:
    """A process started meanwhile leaves Ctrl-C to its parent, from its very first line."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
