"""Where and in which precision a model is trained and timed."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, get_args

import torch
from torch import Tensor, nn

Precision = Literal["float32", "bf16"]
AUTO = "auto"
"""The name that stands for the GPU where there is one, else for the processor."""


@dataclass(frozen=True)
class Place:
    """A device, and the precision in which the model is evaluated on it.

    Args:
        device: "cpu", "cuda" or "cuda:N"; default "cpu".
        precision: "float32", or "bf16" for torch.autocast to bfloat16 around the model in the
            closure, with parameters, losses and measurements in float32; default "float32".
    """

    device: str = "cpu"
    precision: Precision = "float32"

    @property
    def changes(self) -> dict[str, str]:
        """What differs from the default, by name; stored rows and prices name nothing else."""
        own = {"device": self.device, "precision": self.precision}
        return {name: value for name, value in own.items() if value != getattr(Place, name)}

    @property
    def suffix(self) -> str:
        """What differs from the default, to stand behind a name, e.g. " device=cuda"."""
        return "".join(f" {name}={value}" for name, value in self.changes.items())

    @property
    def name(self) -> str:
        """The name of the GPU; "cpu" for the processor."""
        return self.device if self.device == "cpu" else torch.cuda.get_device_name(self.device)

    def clock(self) -> float:
        """Seconds from some origin, once all work on the device is done."""
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)
        return perf_counter()

    def outputs(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """The model, as the closure evaluates it: x -> outputs in float32."""
        if self.precision == "float32":
            return model

        def evaluate(x: Tensor) -> Tensor:
            with torch.autocast(torch.device(self.device).type, torch.bfloat16):
                outputs = model(x)
            return outputs.float()

        return evaluate


PROCESSOR = Place()
"""The default: the processor, in float32."""


def resolved(device: str, precision: str) -> Place:
    """The place that two names stand for on this machine.

    Args:
        device: "cpu", a CUDA device of this machine, or "auto".
        precision: one of `Precision`.

    Raises:
        ValueError: the device is not here, or the precision is unknown.
    """
    here = ["cpu"]
    if torch.cuda.is_available():
        here += ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if device not in (AUTO, *here):
        cure = "" if len(here) > 1 else "; torch sees no GPU: check the driver and torch's build"
        raise ValueError(f"no device {device!r} here; choose from {AUTO}, {', '.join(here)}{cure}")
    known = get_args(Precision)
    if precision not in known:
        raise ValueError(f"unknown precision {precision!r}; choose from {', '.join(known)}")
    chosen = "cuda" if "cuda" in here else "cpu"
    return Place(chosen if device == AUTO else device, precision)  # type: ignore[arg-type]
