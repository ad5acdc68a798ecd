"""A group of gloo processes on this machine that runs cases one after another."""

import os
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import multiprocessing as mp

TIMEOUT = timedelta(seconds=30)
JOIN = 240
"""Seconds after which a group is ended."""


def work(rank: int, world: int, folder: str) -> None:
    """What a process does: every case, then its results to a file."""
    import warnings

    from processes.cases import cases

    torch.set_num_threads(1)
    store = dist.FileStore(os.path.join(folder, "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=TIMEOUT)
    results: dict[str, Any] = {}
    path = Path(folder, f"{rank}.pt")
    for name, case in cases(world).items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.manual_seed(0)
                results[name] = case(rank, world)
        except Exception:
            results[name] = traceback.format_exc()
            torch.save(results, path)
            break  # the others are out of step with this process
        torch.save(results, path)
    os._exit(0)  # without waiting for processes that have died


def run(world: int, folder: Path) -> list[dict[str, Any]]:
    """The results of every process, by the name of the case."""
    context = mp.get_context("spawn")
    processes = [context.Process(target=work, args=(r, world, str(folder))) for r in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(JOIN)
    for process in processes:
        if process.is_alive():
            process.kill()
    paths = [folder / f"{rank}.pt" for rank in range(world)]
    return [torch.load(p, weights_only=False) if p.exists() else {} for p in paths]
