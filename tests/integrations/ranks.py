"""Groups of processes on this machine: each case of a list runs on all of them, in one start."""

import datetime
import os
import traceback
import warnings
from pathlib import Path

import torch
import torch.multiprocessing as mp
from torch import distributed as dist

SECONDS = 30
"""How long a process waits for another."""


def _work(rank, count, directory, function, names):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    store = dist.FileStore(os.path.join(directory, "store"), count)
    timeout = datetime.timedelta(seconds=SECONDS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=timeout)
    results = {}
    for name in names:
        try:
            results[name] = function(name, rank, count)
        except BaseException:
            results[name] = traceback.format_exc()
            break  # the others may wait for this process: what follows would mean nothing
    torch.save(results, os.path.join(directory, f"{rank}.pt"))
    if len(results) == len(names):
        dist.barrier()
    dist.destroy_process_group()


def run(function, names, count, directory: Path, seconds=240):
    """Results of a function on every process, by name: a list of one a process.

    Args:
        function: (name, rank, count) → what torch.save takes; importable.
        names: of the cases, in order.
        count: of processes.
        directory: empty.
        seconds: after which the processes are ended.
    """
    arguments = count, str(directory), function, list(names)
    context = mp.spawn(_work, arguments, nprocs=count, join=False)
    end = datetime.datetime.now() + datetime.timedelta(seconds=seconds)
    try:
        while not context.join(timeout=1, grace_period=1):
            if datetime.datetime.now() > end:
                raise TimeoutError(f"{count} processes took more than {seconds} s")
    finally:
        for process in context.processes:
            if process.is_alive():
                process.kill()
    found = [torch.load(directory / f"{r}.pt", weights_only=False) for r in range(count)]
    return {name: [own.get(name, "not reached") for own in found] for name in names}
