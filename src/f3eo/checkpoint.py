"""Checkpoints that a kill at any moment leaves whole: the last ones of a run, in one folder."""

import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from f3eo.atomic import replaced

NAME = re.compile(r"step-(\d+)\.(\d+)-of-(\d+)\.pt")
"""Names of the files: the step, the process, how many there are."""


def save(folder: Path | str, state: Any, step: int, *, keep: int = 2, group: Any = None) -> Path:
    """Write a checkpoint, and drop the oldest ones when it is on the disk.

    The file is written beside its place, synchronised and renamed. Its entries have the checksums
    of torch's zip archives. Where `torch.distributed` has several processes, each writes a file of
    its own: all have to call this at the same step, and nothing is dropped before all have written.

    Args:
        folder: of this run alone; made if it is missing.
        state: what `torch.load(weights_only=True)` takes: tensors, numbers, texts, None, and
            nestings of them. What a run needs to go on bit for bit is in `docs/trust.md`.
        step: number of steps made, from 0.
        keep: how many checkpoints stay, at least 1; default 2, so that there is one before the
            last.
        group: of processes; default all of them.

    Returns:
        The file of this process.

    Raises:
        ValueError: `step` is negative, or `keep` below 1.
        OSError: the file cannot be written; those before it stay.
    """
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise ValueError(f"step must be an integer >= 0, the steps made so far, received {step!r}")
    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
        raise ValueError(f"keep must be an integer >= 1, received {keep!r}; the default is 2")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rank, count = _place(group)
    file = folder / f"step-{step:09}.{rank}-of-{count}.pt"
    sums = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        with replaced(file) as draft:
            torch.save(state, draft)
    finally:
        torch.serialization.set_crc32_options(sums)
    if count > 1:
        dist.barrier(group)
    for old in sorted(_files(folder, rank, count), reverse=True)[keep:]:
        _files(folder, rank, count)[old].unlink()
    return file


def load(
    folder: Path | str, *, group: Any = None, map_location: Any = None
) -> tuple[int, Any] | None:
    """The newest checkpoint that is whole on every process.

    Every entry of a file is read and compared with its checksum. `torch.load` does not: it takes a
    file with a changed bit.

    Args:
        folder: see `save`.
        group: of processes; default all of them.
        map_location: see `torch.load`; default where the tensors were.

    Returns:
        The step and the state; None where the folder has no checkpoint, does not exist, or has the
        first one of some processes alone, as a kill while it is written leaves it.

    Raises:
        ValueError: no checkpoint is whole, or they are those of another number of processes.

    Warns:
        UserWarning: a file is damaged and one before it is used; names it.
    """
    folder = Path(folder)
    rank, count = _place(group)
    files = _files(folder, rank, count)
    damaged = {step: file for step, file in files.items() if not is_whole(file)}
    whole = sorted(set(files) - set(damaged))
    others = _files(folder, None, None)
    told = _gathered((whole, sorted(files), bool(others)), count, group)
    if not any([has_others for _, _, has_others in told]):
        return None
    common = set.intersection(*[set(steps) for steps, _, _ in told])
    if not common and _is_first(told):
        return None
    if not common:
        if not any([has_files for _, has_files, _ in told]):
            names = ", ".join(sorted(file.name for file in others.values())[:3])
            raise ValueError(
                f"{folder} has no checkpoint of {count} process(es), only {names}: start as many "
                f"processes as wrote them, or name another folder"
            )
        raise ValueError(
            f"no checkpoint in {folder} is whole on all of {count} process(es): damaged here are "
            f"{', '.join(f.name for f in damaged.values()) or 'none'}; bring a copy back, or name "
            f"another folder to start anew"
        )
    step = max(common)
    if newer := [file.name for other, file in damaged.items() if other > step]:
        warnings.warn(
            f"{', '.join(newer)} in {folder} is damaged, as a file is that was cut or changed "
            f"after it was written; going on from step {step}",
            stacklevel=2,
        )
    return step, torch.load(files[step], map_location=map_location, weights_only=True)


def is_whole(file: Path | str) -> bool:
    """Whether a file of `torch.save` has all entries, each with the content of its checksum."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError):
        return False


def _files(folder: Path, rank: int | None, count: int | None) -> dict[Any, Path]:
    """Files of a process by their step; with None those of all, by their names."""
    found = {}
    for file in folder.iterdir() if folder.is_dir() else ():
        if match := NAME.fullmatch(file.name):
            step, own, of = map(int, match.groups())
            if rank is None:
                found[file.name] = file
            elif (own, of) == (rank, count):
                found[step] = file
    return found


def _is_first(told: Sequence[tuple[list[int], list[int], bool]]) -> bool:
    """Whether a group was killed before all had written the first checkpoint, whole where it is."""
    steps = {step for _, files, _ in told for step in files}
    return len(steps) == 1 and all([whole == files for whole, files, _ in told])


def _place(group: Any) -> tuple[int, int]:
    """Rank of this process and number of processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(group), dist.get_world_size(group)


def _gathered(own: Any, count: int, group: Any) -> list[Any]:
    if count == 1:
        return [own]
    told: list[Any] = [None] * count
    dist.all_gather_object(told, own, group=group)
    return told
