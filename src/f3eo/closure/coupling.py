"""Whether the losses of a part of a batch are that part of the batch's losses.

They are not where a closure couples its samples (negatives from the same batch, also detached) or
divides by something of the batch (token means): parts then add up to another loss.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from f3eo.closure.evaluate import evaluate
from f3eo.closure.output import Output
from f3eo.closure.problem import Problem
from f3eo.closure.snapshot import Snapshot

logger = logging.getLogger("f3eo")

CURES = (
    "use the whole batch (fraction=1, no chunk, no accumulate), or return per-sample losses that "
    "do not depend on the rest of the batch; what divides by something of the batch, as a mean "
    "over its tokens does, is Weighted(losses, weights) or Categorical(…, per_token=True)"
)
"""What a refusal of parts ends with."""


@dataclass(frozen=True)
class Finding:
    """What a part of a batch has to do with the whole.

    Args:
        known: whether that could be found; else the closure is another function at every call.
        difference: the first sample whose loss or weight differs, or what a part raises, in words;
            None where a part is what it is in the whole.
        weighted: whether the closure returns weights.
    """

    known: bool
    difference: str | None = None
    weighted: bool = False


class Coupling:
    """Checks parts at the first use of a closure's code, and where uses are a power of sixteen.

    A check costs a forward pass without gradients through the whole batch and one through the part.
    """

    def __init__(self) -> None:
        self._uses: dict[Any, int] = {}
        self._found: dict[Any, Finding] = {}
        self._told = False

    def __getstate__(self) -> dict[str, Any]:
        return {"_uses": {}, "_found": {}, "_told": self._told}  # code cannot be copied

    def tell(self, what: str) -> None:
        """Log it, once."""
        if not self._told:
            self._told = True
            logger.info("%s", what)

    def __call__(self, problem: Problem, index: Tensor) -> Finding:
        """The finding for this closure.

        Args:
            problem: closure and batch.
            index: the samples of a part, at least one of them left out.
        """
        closure: Any = problem.closure
        while isinstance(closure, partial):
            closure = closure.func
        code = getattr(closure, "__code__", type(closure))
        uses = self._uses.get(code, 0) + 1
        if uses & (uses - 1) == 0 and uses.bit_length() % 4 == 1:
            found = couples(problem, index)
            if found is None:  # nothing can be found on this batch
                return self._found.get(code, Finding(known=False))
            self._found[code] = found
            if not found.known:
                self.tell(
                    "the closure draws random numbers in evaluation mode, too: whether the losses "
                    "of a part are those of the whole batch is not checked"
                )
        self._uses[code] = uses
        return self._found[code]


def couples(problem: Problem, index: Tensor) -> Finding | None:
    """Compare the losses of the samples at `index`, by themselves and in the whole batch.

    Nothing is left behind: buffers, training modes, random states and .grad are put back. A model
    whose closure draws random numbers is in evaluation mode for it.

    Args:
        problem: closure, batch, parameters and, if known, model.
        index: (n,), int64.

    Returns:
        The finding; None where losses are not finite.
    """
    snapshot = Snapshot(problem)
    training = [(m, m.training) for m in problem.model.modules()] if problem.model else []
    try:
        whole, unit = _run(problem, snapshot)
        if snapshot.torch_random_changed():
            for module, _ in training:
                module.training = False
            whole, unit = _run(problem, snapshot)
            if snapshot.torch_random_changed():
                return Finding(known=False, weighted=whole.shares.weights is not None)
        try:
            part, _ = _run(problem.part(index), snapshot)
        except Exception as error:  # it takes the whole batch alone: an index, a size, a pair
            line = f"{type(error).__name__}: {error}".splitlines()[0]
            difference = f"a part of {len(index)} samples gives {line}"
            return Finding(True, difference, whole.shares.weights is not None)
        if not all(bool(output.losses.isfinite().all()) for output in (whole, part)):
            return None
        difference = _difference(whole, part, index, unit)
        # What draws from a source of its own differs from itself, too.
        if difference and _difference(whole, _run(problem, snapshot)[0], None, unit):
            return Finding(known=False, weighted=whole.shares.weights is not None)
        return Finding(True, difference, whole.shares.weights is not None)
    finally:
        for module, mode in training:
            module.training = mode
        snapshot.restore()


def _run(problem: Problem, snapshot: Snapshot) -> tuple[Output, float]:
    """What the closure gives in the snapshot as it was, and the coarsest rounding unit in it."""
    attached = False
    while True:
        snapshot.restore()
        snapshot.install_buffer_copies()
        coarsest = _Coarsest()
        try:
            with _silence(), coarsest:
                output = evaluate(
                    problem,
                    per_sample=True,
                    differentiable=False,
                    enable_grad=attached,
                    mode=None,
                )
        except RuntimeError:
            if attached:
                raise
            attached = True  # derivatives in the loss, as physics-informed networks have
        else:
            return output, max(coarsest.unit, torch.finfo(output.losses.dtype).eps)


def _difference(whole: Output, part: Output, index: Tensor | None, unit: float) -> str | None:
    for name, all_of, own in (
        ("loss", whole.losses, part.losses),
        ("weight", whole.shares.weights, part.shares.weights),
    ):
        if (all_of is None) != (own is None):
            return "weights come with the whole batch or with the part alone"
        if all_of is None or own is None:
            continue
        all_of, own = all_of.detach().double(), own.detach().double()
        at = torch.arange(len(all_of)) if index is None else index
        all_of = all_of[at.to(all_of.device)]
        # Losses near 0 are differences of logits, whose rounding stays.
        allowed = unit**0.5 * float(all_of.abs().max()) + min(1e3 * unit, 0.25)
        apart = ((all_of - own).abs() > allowed).nonzero()
        if len(apart):
            first = int(apart[0])
            return (
                f"sample {int(at[first])} has {name} {float(all_of[first]):.6g} in the batch of "
                f"{len(whole.losses)} and {float(own[first]):.6g} in a part of {len(own)}"
            )
    return None


class _Coarsest(TorchFunctionMode):
    """Notes the rounding unit of every result."""

    unit = 0.0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for t in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(t, Tensor) and t.is_floating_point():
                unit = torch.finfo(t.dtype).eps
                if t.dtype == torch.float32 and t.is_cuda:
                    unit = 2.0**-10  # TF32, which convolutions use where nothing else is said
                self.unit = max(self.unit, unit)
        return result


@contextmanager
def _silence() -> Iterator[None]:
    """Warnings are those of the step itself; checkpoints warn where nothing needs a gradient."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
