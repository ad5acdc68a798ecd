"""Groups of gloo processes on this machine: one start runs a list of cases, one after another."""

import os
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import multiprocessing as mp

TIMEOUT = timedelta(seconds=30)
"""How long a process waits for another."""

Case = Callable[[str, int, int], Any]
"""(name, rank, number of processes) → what torch.save takes; a function of a module."""


def _work(rank: int, count: int, folder: str, case: Case, names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(os.path.join(folder, "store"), count)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=TIMEOUT)
    results: dict[str, Any] = {}
    for name in names:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.manual_seed(0)
                results[name] = case(name, rank, count)
        except Exception:
            results[name] = traceback.format_exc()
        torch.save(results, os.path.join(folder, f"{rank}.pt"))
        if isinstance(results[name], str) and "Traceback" in results[name]:
            break  # the others are out of step with this process
    os._exit(0)  # without waiting for processes that have died


def run(
    case: Case, names: Sequence[str], count: int, folder: Path, seconds: float = 240
) -> list[dict[str, Any]]:
    """The results of every process, by name; an error is its traceback, and ends the list.

    Args:
        case: runs one of the cases.
        names: of the cases, in order.
        count: of processes.
        folder: empty.
        seconds: after which the processes are ended.
    """
    context = mp.get_context("spawn")
    arguments = count, str(folder), case, list(names)
    processes = [context.Process(target=_work, args=(rank, *arguments)) for rank in range(count)]
    for process in processes:
        process.start()
    end = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
    for process in processes:
        if process.is_alive():
            process.kill()
    paths = [folder / f"{rank}.pt" for rank in range(count)]
    return [torch.load(p, weights_only=False) if p.exists() else {} for p in paths]


def of(group: Sequence[dict[str, Any]], name: str) -> list[Any]:
    """What every process found in a case."""
    for rank, results in enumerate(group):
        assert name in results, f"process {rank} did not come as far as {name}"
        found = results[name]
        assert not isinstance(found, str) or "Traceback" not in found, f"process {rank}: {found}"
    return [results[name] for results in group]
