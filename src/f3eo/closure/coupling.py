"""Checks whether the losses of a part of a batch equal those samples' losses in the whole batch.

They differ if a closure couples its samples, as with negatives from the same batch (also detached),
or divides by a property of the batch, as a mean over tokens does. Means over parts of the batch
then give another loss.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
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
    "do not depend on the rest of the batch; a loss divided by a property of the batch, such as a "
    "mean over its tokens, is Weighted(losses, weights) or Categorical(…, per_token=True)"
)
"""Last part of an error message that refuses to split a batch."""


Agreed = Callable[[bool], bool]
"""An answer → whether any process that measures this batch gives it."""


def alone(answer: bool) -> bool:
    """The answer of the only process."""
    return answer


@dataclass(frozen=True)
class Comparison:
    """Losses of a part of a batch compared with those of the whole.

    Args:
        known: False if the closure gives other losses at every call, so that nothing follows.
        difference: the first sample whose loss or weight differs, or the error that the part
            raises, in words; None if the part agrees.
        weighted: whether the closure returns weights.
    """

    known: bool
    difference: str | None = None
    weighted: bool = False


class Coupling:
    """Comparisons of parts, kept per closure.

    A closure is compared at its 1st, 16th, 256th, … check. A comparison costs a forward pass
    without gradients of the whole batch and one of the part.
    """

    def __init__(self) -> None:
        self._uses: dict[Any, int] = {}
        self._comparisons: dict[Any, Comparison] = {}
        self._logged = False

    def __getstate__(self) -> dict[str, Any]:  # code objects cannot be pickled
        return {"_uses": {}, "_comparisons": {}, "_logged": self._logged}

    def log_once(self, message: str) -> None:
        """Log a message, unless one has been logged before."""
        if not self._logged:
            self._logged = True
            logger.info("%s", message)

    def check(self, problem: Problem, index: Tensor, agreed: Agreed = alone) -> Comparison:
        """Compare a part with the whole batch, or return the last comparison for this closure.

        Args:
            problem: closure and batch.
            index: the samples of the part, shape (n,), int64; not all samples.
            agreed: see `compare_part`.
        """
        closure: Any = problem.closure
        while isinstance(closure, partial):
            closure = closure.func
        code = getattr(closure, "__code__", type(closure))
        uses = self._uses.get(code, 0) + 1
        if uses & (uses - 1) == 0 and uses.bit_length() % 4 == 1:  # a power of 16
            comparison = compare_part(problem, index, agreed)
            if comparison is None:
                return self._comparisons.get(code, Comparison(known=False))
            self._comparisons[code] = comparison
            if not comparison.known:
                self.log_once(
                    "the closure draws random numbers in evaluation mode, too: it is not checked "
                    "whether the losses of a part are those of the whole batch"
                )
        self._uses[code] = uses
        return self._comparisons[code]


def compare_part(problem: Problem, index: Tensor, agreed: Agreed = alone) -> Comparison | None:
    """Compare the losses of some samples, evaluated alone and in the whole batch.

    Buffers, training modes, random states and .grad are restored. If the closure draws random
    numbers, it is compared with the model in evaluation mode.

    Args:
        problem: closure, batch, parameters and, if known, model.
        index: the samples, shape (n,), int64.
        agreed: whether any process that runs the model at the same time answers yes, so that all
            run it equally often; default the own answer.

    Returns:
        The comparison; None if a loss is not finite.
    """
    snapshot = Snapshot(problem)
    training = [(m, m.training) for m in problem.model.modules()] if problem.model else []
    try:
        whole, unit = _evaluate_from(snapshot, problem)
        if snapshot.torch_random_changed():
            for module, _ in training:
                module.training = False
            whole, unit = _evaluate_from(snapshot, problem)
        weighted = whole.shares.weights is not None
        if snapshot.torch_random_changed():
            return Comparison(known=False, weighted=weighted)
        try:
            part, _ = _evaluate_from(snapshot, problem.part(index))
        except Exception as error:  # the closure takes nothing but the whole batch
            line = f"{type(error).__name__}: {error}".splitlines()[0]
            return Comparison(True, f"a part of {len(index)} samples gives {line}", weighted)
        finite = all(bool(output.losses.isfinite().all()) for output in (whole, part))
        if agreed(not finite):
            return None
        difference = _difference(whole, part, index, unit)
        if agreed(difference is not None):
            # A closure with a random source that no snapshot covers differs from itself, too.
            again = _evaluate_from(snapshot, problem)[0]
            if agreed(_difference(whole, again, None, unit) is not None):
                return Comparison(known=False, weighted=weighted)
            difference = difference or "another process found a sample whose loss differs"
        return Comparison(True, difference, weighted)
    finally:
        for module, mode in training:
            module.training = mode
        snapshot.restore()


def _evaluate_from(snapshot: Snapshot, problem: Problem) -> tuple[Output, float]:
    """The closure's output from the state of the snapshot, and its coarsest rounding unit."""
    enable_grad = False
    while True:
        snapshot.restore()
        snapshot.install_buffer_copies()
        units = _CoarsestUnit()
        try:
            with _without_warnings():
                output = evaluate(
                    problem,
                    per_sample=True,
                    differentiable=False,
                    enable_grad=enable_grad,
                    mode=units,
                )
        except RuntimeError:
            if enable_grad:
                raise
            enable_grad = True  # the loss holds derivatives, as in physics-informed networks
        else:
            return output, max(units.coarsest, torch.finfo(output.losses.dtype).eps)


def _difference(whole: Output, part: Output, index: Tensor | None, unit: float) -> str | None:
    """The first sample whose loss or weight differs, in words; `index` None means all samples."""
    for name, in_whole, in_part in (
        ("loss", whole.losses, part.losses),
        ("weight", whole.shares.weights, part.shares.weights),
    ):
        if (in_whole is None) != (in_part is None):
            return "weights come with the whole batch or with the part alone"
        if in_whole is None or in_part is None:
            continue
        in_whole, in_part = in_whole.detach().double(), in_part.detach().double()
        samples = torch.arange(len(in_whole)) if index is None else index
        in_whole = in_whole[samples.to(in_whole.device)]
        # A loss near 0 is a difference of logits and has their rounding error.
        tolerance = unit**0.5 * float(in_whole.abs().max()) + min(1e3 * unit, 0.25)
        differing = ((in_whole - in_part).abs() > tolerance).nonzero()
        if len(differing):
            first = int(differing[0])
            return (
                f"sample {int(samples[first])} has {name} {float(in_whole[first]):.6g} in the "
                f"batch of {len(whole.losses)} and {float(in_part[first]):.6g} in a part of "
                f"{len(in_part)}"
            )
    return None


class _CoarsestUnit(TorchFunctionMode):
    """Records the largest rounding unit of all results of torch functions."""

    coarsest = 0.0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for t in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(t, Tensor) and t.is_floating_point():
                unit = torch.finfo(t.dtype).eps
                if t.dtype == torch.float32 and t.is_cuda:
                    unit = 2.0**-10  # TF32, the default of convolutions
                self.coarsest = max(self.coarsest, unit)
        return result


@contextmanager
def _without_warnings() -> Iterator[None]:
    """The step itself gives the closure's warnings; checkpoints warn if nothing has a gradient."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
