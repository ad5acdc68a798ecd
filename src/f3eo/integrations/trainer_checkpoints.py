"""Which checkpoint of a Trainer is whole: a kill while one is written leaves a part of it."""

import json
import os
import re
import warnings
from pathlib import Path

from f3eo.checkpoint import is_whole

NAME = re.compile(r"checkpoint-(\d+)")
STATE = "trainer_state.json"
"""The file that the Trainer writes last."""


def last_checkpoint(folder: Path | str) -> str | None:
    """The newest checkpoint of a Trainer that is whole, for `resume_from_checkpoint`.

    Whole is one with all entries of torch's files as their checksums say, with files of
    safetensors as long as their headers say, with the state of the Trainer, which it writes last,
    and where WORLD_SIZE is above 1 with the random states of all processes.

    Args:
        folder: `output_dir` of the arguments.

    Returns:
        Its path; None where the folder has none, or does not exist.

    Raises:
        ValueError: there are checkpoints, and none is whole.

    Warns:
        UserWarning: names the checkpoints that are passed over.
    """
    folder = Path(folder)
    found = [
        (int(match[1]), path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := NAME.fullmatch(path.name)) and path.is_dir()
    ]
    broken: list[str] = []
    for _, path in sorted(found, reverse=True):
        if not (why := _damage(path)):
            if broken:
                warnings.warn(
                    f"{'; '.join(broken)}: as a kill leaves it; going on from {path}", stacklevel=2
                )
            return str(path)
        broken.append(f"{path} {why}")
    # The very first one may have been cut: then there is nothing to lose.
    if len(broken) > 1:
        raise ValueError(
            f"no checkpoint in {folder} is whole: {'; '.join(broken)}; bring a copy back, or name "
            f"another output_dir to start anew"
        )
    if broken:
        warnings.warn(f"{broken[0]}: as a kill leaves it; starting anew", stacklevel=2)
    return None


def _damage(folder: Path) -> str:
    """What is wrong with a checkpoint; empty if it is whole."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    wanted = [STATE, *(f"rng_state_{rank}.pth" for rank in range(count) if count > 1)]
    if missing := [name for name in wanted if not (folder / name).is_file()]:
        return f"lacks {missing[0]}"
    for file in sorted(folder.iterdir()):
        check = CHECKS.get(file.suffix)
        if check and not check(file):
            return f"has a damaged {file.name}"
    return ""


def _json_is_whole(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except ValueError:
        return False
    return True


def _safetensors_are_whole(file: Path) -> bool:
    """Eight bytes with the length of a header of JSON, the header, and what its offsets ask for."""
    try:
        with file.open("rb") as content:
            length = int.from_bytes(content.read(8), "little")
            if length > file.stat().st_size:
                return False
            header = json.loads(content.read(length))
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        return file.stat().st_size == 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return False


CHECKS = {
    ".pt": is_whole,
    ".pth": is_whole,
    ".bin": is_whole,
    ".json": _json_is_whole,
    ".safetensors": _safetensors_are_whole,
}
"""How a file is checked, by its suffix; others are not."""
