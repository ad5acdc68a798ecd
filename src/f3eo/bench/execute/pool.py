"""A pool of worker processes that execute runs and return rows."""

import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import torch

from f3eo.bench.execute.checkpoint import Keeper
from f3eo.bench.execute.kind import RUNS, Kind, Runnable
from f3eo.bench.run.row import Row

_CONTEXT = get_context("spawn")  # a forked torch may hang on its threads


class Update(NamedTuple):
    """Progress of a run: the share that is done, in [0, 1], and its row when it has ended."""

    worker: int
    run: Runnable
    share: float
    row: Row | None = None


def execute(
    runs: Iterable[Runnable],
    workers: int = 2,
    deadline: float = math.inf,
    keep: Path | None = None,
    kind: Kind = RUNS,
) -> Generator[Update]:
    """Execute runs in parallel, each worker with one torch thread.

    Closing the iterator, as an exception does, ends the workers. A worker that dies gives a row
    with an error, and is replaced.

    Args:
        runs: the runs, in the order in which they are started.
        workers: number of processes; default 2.
        deadline: time on `time.monotonic` after which no run is started; default never.
        keep: folder that receives a `Checkpoint` of every run that finishes; default none.
        kind: what carries a run out; default the runs of comparisons and studies.

    Yields:
        Updates as they arrive: one with share 0 at the start of a run, one with its row at its end.
    """
    pending = deque(runs)
    team = [_Worker(number, keep, kind) for number in range(min(workers, len(pending)))]
    try:
        while pending or any(worker.run for worker in team):
            if time.monotonic() >= deadline:
                pending.clear()
            for worker in team:
                if worker.run is None and pending:
                    yield worker.start_run(pending.popleft())
            busy = {worker.connection: worker for worker in team if worker.run}
            for connection in wait(list(busy)) if busy else ():
                yield busy[connection].update()  # type: ignore[index]
    finally:
        for worker in team:
            worker.end()


class _Worker:
    """A worker process and the parent's end of the pipe to it."""

    def __init__(self, number: int, keep: Path | None, kind: Kind) -> None:
        self.number, self.keep, self.kind = number, keep, kind
        self.run: Runnable | None = None
        self._start()

    def start_run(self, run: Runnable) -> Update:
        self.run = run
        with suppress(OSError):  # the process died while idle: update() gives the error
            self.connection.send(run)
        return Update(self.number, run, 0.0)

    def update(self) -> Update:
        run = self.run
        assert run is not None
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            self.end()
            self._start()
            answer = self.kind.failed(run, f"the worker process died with exit code {code}")
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
        work = theirs, self.keep, self.kind.record
        self.process = _CONTEXT.Process(target=_serve, args=work, daemon=True)
        with _interrupt_ignored():
            self.process.start()
        theirs.close()  # then the death of the worker is an end of file here


def _serve(connection: Connection, keep: Path | None, record: Callable[..., Row]) -> None:
    """The main loop of a worker; it ends when the parent's end of the pipe closes."""
    torch.set_num_threads(1)
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # inductor starts no processes
    try:
        while True:
            connection.send(_recorded(connection.recv(), connection, keep, record))
    except (EOFError, OSError):
        return


def _recorded(
    run: Any, connection: Connection, keep: Path | None, record: Callable[..., Row]
) -> Row:
    if keep is None:
        return record(run, connection.send)
    keeper = Keeper(run)
    row = record(run, connection.send, keeper)
    if row["status"] == "finished":
        keeper.write(keep)
    return row


@contextmanager
def _interrupt_ignored() -> Iterator[None]:
    """A process started in this context ignores Ctrl-C from its first line on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
