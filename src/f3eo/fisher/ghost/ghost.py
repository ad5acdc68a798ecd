"""Per-sample squared gradient norms from one forward pass and gradients in pre-activations alone.

Goodfellow 2015 (1510.01799) for linear layers; here for every operation, tied and reused parameters
included, and differentiable, so that ½∇ of their mean is (1/B) Σ H_i g_i by one more backward pass.
"""

import inspect
import logging
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

import f3eo.fisher.ghost.rules  # noqa: F401  (registers the rules)
from f3eo.arguments import mapped_arguments
from f3eo.closure.evaluate import Output, check_reached, evaluate
from f3eo.closure.graph import coarsest, contents
from f3eo.closure.problem import Problem
from f3eo.curvature.guard import NotRepeatable, custom
from f3eo.curvature.passes import OVERWRITTEN
from f3eo.fisher.ghost.evidence import PROBES, Evidence, Probe, evidence, wanted
from f3eo.fisher.ghost.gradients.fallback import Sample, fallback
from f3eo.fisher.ghost.gradients.kept import Gathered, gather
from f3eo.fisher.ghost.gradients.norms import Contribution, Norms, contribution, norms
from f3eo.fisher.ghost.recording.capture import Capture
from f3eo.fisher.ghost.recording.layout import Layout
from f3eo.fisher.ghost.recording.use import Use
from f3eo.fisher.ghost.registry import Rule
from f3eo.fisher.ghost.second_pass.replay import SecondPass, place
from f3eo.fisher.ghost.verify import refuse_hooks, verify

logger = logging.getLogger("f3eo")


class Ghost:
    """One forward pass of a problem with the uses of its parameters.

    Args:
        problem: closure, batch and parameters.
        memory: bytes that per-sample gradients written out may take at a time.
        known: what is known of layouts, by signature of the recorded uses; what single samples of
            this batch tell is added.
        differentiable: whether norms are to be differentiated; without, fused kernels do.
        check: whether single samples are asked though all seems known.

    Raises:
        ValueError: operations whose samples mix.
        RuntimeError: per-sample gradients that do not add up to a sample's own gradient.
    """

    def __init__(
        self,
        problem: Problem,
        memory: int,
        known: dict[Any, list[Evidence]],
        *,
        differentiable: bool = True,
        check: bool = False,
    ) -> None:
        self._problem = problem
        self._memory = memory
        self._differentiable = differentiable
        self._capture = Capture(
            problem.parameters,
            problem.batch,
            problem.model,
            differentiable=differentiable,
        )
        self.output: Output = evaluate(
            problem, per_sample=True, differentiable=differentiable, mode=self._capture
        )
        self.losses = self.output.losses
        self._uses = self._capture.uses
        check_reached(self._uses, problem.parameters)
        self._edges = [edge for use in self._uses for edge in use.edges]
        self._all_known = known
        self._signature = (
            len(self.losses) == 1,
            *(
                (
                    use.operation,
                    tuple(map(len, use.shapes)),
                    tuple(map(self._capture.sources, use.parameters)),
                )
                for use in self._uses
            ),
        )
        self._known = None if check else known.get(self._signature)
        self._layouts: list[list[Layout]] | None = None
        self.probes: list[Probe] = []
        """What single samples were asked on this batch."""

    @property
    def generators(self) -> dict[torch.Generator, Tensor]:
        """Generators of the user's that the pass drew from, and their states before."""
        return self._capture.generators

    @property
    def unit(self) -> float:
        """The coarsest rounding unit on the way to the losses, also of parts without parameters."""
        return coarsest({self.losses.dtype} | self._capture.dtypes)

    def norms(self, outputs: Tensor, cotangent: Tensor | None = None) -> Norms:
        """‖J_iᵀ c_i‖² for every sample i, J_i the Jacobian of `outputs` of sample i.

        Args:
            outputs: (B, …), samples independent of one another.
            cotangent: c in the same shape, may depend on the parameters; default ones.
        """
        if len(self.losses) == 0:
            return Norms(outputs.flatten(1).sum(1) if outputs.ndim > 1 else outputs, {})
        cotangent = torch.ones_like(outputs) if cotangent is None else cotangent
        deltas = torch.autograd.grad(
            outputs,
            self._edges,
            cotangent,
            create_graph=self._differentiable,
            retain_graph=True,
            allow_unused=True,
        )
        if not self._settled(deltas):
            nan = {id(p): torch.full_like(p, torch.nan) for p in self._problem.parameters}
            return Norms(torch.full_like(self.losses, torch.nan), nan)
        with torch.set_grad_enabled(self._differentiable):
            return self._norms(deltas)

    def gathered(self) -> tuple[Gathered, SecondPass]:
        """Norms, totals and gradients of ω_i ℓ_i and what a second pass needs beside them.

        The recorded tensors are forgotten, each as soon as its gradients are there.

        Raises:
            NotRepeatable: why there can be no second pass.
        """
        self._refuse_second_pass()
        derived = any(self._capture.derives(p) for use in self._uses for p in use.parameters)
        complete = self._known is not None and all(item.complete for item in self._known)
        deltas = torch.autograd.grad(
            self.losses,
            self._edges,
            self.output.shares.like(self.losses),
            retain_graph=derived or not complete,
            allow_unused=True,
        )
        unit = max(self.unit, *(torch.finfo(t.dtype).eps for t in deltas if t is not None), 0.0)
        if unit > torch.finfo(torch.float32).eps:
            raise NotRepeatable("the closure works in 16 bits, too coarse for differences")
        if not self._settled(deltas):
            nan = {id(p): torch.full_like(p, torch.nan) for p in self._problem.parameters}
            return Gathered(torch.full_like(self.losses, torch.nan), nan, {}, 1.0), self._recorded()
        recorded, contributions = self._recorded(), self._contributed(deltas)
        del deltas
        self._uses.clear()
        found = gather(
            contributions,
            self._problem.parameters,
            self._problem.structured,
            self._capture.sources,
            self.losses,
            self._memory,
            unit,
        )
        if found is None:
            raise NotRepeatable(
                f"per-sample gradients take more than memory={self._memory} bytes; a smaller batch "
                f"(chunk=) or more memory would do"
            )
        return found, recorded

    def _refuse_second_pass(self) -> None:
        if (obstacle := self._capture.obstacle) is not None:
            raise NotRepeatable(obstacle)
        if any(len(use.shapes) > 1 for use in self._uses):
            raise NotRepeatable("an operation on parameters has several outputs")
        if any(t._version != version for t, version in self._capture.kinks.values()):
            raise NotRepeatable(
                "a piecewise linear operation's argument or result is written to afterwards"
            )
        if self._capture.cuts.overwritten():
            raise NotRepeatable(OVERWRITTEN)
        if self._known is None and (names := contents(self.losses).custom):
            raise custom(names)

    def _recorded(self) -> SecondPass:
        uses = list(zip(self._uses, self._layouts, strict=True)) if self._layouts else []
        derives, counts = self._capture.derives, Counter[int]()
        for p in (p for use, _ in uses for p in use.parameters):
            counts.update(dict.fromkeys(self._capture.sources(p), 2 if derives(p) else 1))
        return SecondPass(
            places={use.call: place(use, layouts) for use, layouts in uses},
            derived=self._capture.derived,
            kinks={call: first for call, (first, _) in self._capture.kinks.items()},
            cuts=self._capture.cuts,
            once={i for i, n in counts.items() if n == 1},
            samples=len(self.losses),
        )

    def _contributed(self, deltas: Sequence[Tensor | None]) -> list[Contribution]:
        assert self._layouts is not None
        per_use = iter(deltas)
        return [
            item
            for use, layouts in zip(self._uses, self._layouts, strict=True)
            for item in self._contributions(use, layouts, [next(per_use) for _ in use.edges])
        ]

    def _norms(self, deltas: Sequence[Tensor | None]) -> Norms:
        return norms(
            self._contributed(deltas),
            self._problem.parameters,
            self._problem.structured,
            self._capture.sources,
            self.losses,
            self._memory,
        )

    def _contributions(
        self, use: Use, layouts: list[Layout], deltas: list[Tensor | None]
    ) -> list[Contribution]:
        if all(d is None for d in deltas):
            return []
        _refuse_overwritten(use)
        samples = len(self.losses)
        parts = [
            layout.split(self.losses.new_zeros(shape) if d is None else d, samples)
            for d, shape, layout in zip(deltas, use.shapes, layouts, strict=True)
        ]

        def split(tensor: Tensor) -> Tensor:
            tensor = tensor if self._differentiable else tensor.detach()
            return layouts[0].split_argument(tensor, use.shapes[0], samples, use.operation)

        arguments = mapped_arguments(
            lambda t: Sample(split(t)) if id(t) in use.sampled else t,
            (use.args, use.kwargs),
        )
        if (terms := _terms(use, arguments, parts)) is not None:
            return terms
        return [fallback(use, arguments, parts)]

    def _settled(self, deltas: Sequence[Tensor | None]) -> bool:
        """Find the layouts, by what is known or by asking single samples.

        Args:
            deltas: gradients of the whole batch in all outputs.

        Returns:
            False where gradients are not finite: nothing can be found then, and no norm is.
        """
        samples = len(self.losses)
        known, uses = self._known, self._uses
        open_ = known is None or not (
            self._problem.repeatable  # a recording has no values to look at
            or all(item.complete for item in known)
            or wanted(uses, known, deltas, samples) is None
        )
        if open_:
            known = self._asked(deltas)
            if known is None:
                return False
            self._known = known
        elif self._layouts is not None:
            return True
        assert known is not None
        self._layouts = [item.layouts(use) for item, use in zip(known, uses, strict=True)]
        if open_:
            self._verify()
            self._all_known[self._signature] = known  # not before: what is refused is asked again
        return True

    def _asked(self, deltas: Sequence[Tensor | None]) -> list[Evidence] | None:
        """What gradients of single samples tell; None where one is not finite."""
        samples, leaves = len(self.losses), self._problem.parameters
        refuse_hooks(leaves, self._problem.name)
        self.probes, known = [], list[Evidence]()
        first = [0, samples - 1] if samples > 1 else [0]
        while len(self.probes) < PROBES:
            asked = [probe.sample for probe in self.probes]
            i = first.pop(0) if first else wanted(self._uses, known, deltas, samples, asked)
            if i is None:
                break
            gradients = torch.autograd.grad(  # pyright: ignore[reportCallIssue]
                self.losses[i],
                [*self._edges, *leaves],  # pyright: ignore[reportArgumentType]
                retain_graph=True,
                allow_unused=True,
            )
            if not all(bool(g.isfinite().all()) for g in gradients if g is not None):
                return None
            count = len(self._edges)
            self.probes.append(Probe(i, gradients[:count], gradients[count:]))
            if not first:
                known = evidence(self._uses, self.probes, samples)
        return known

    def _verify(self) -> None:
        """Hold what the uses add up to against the gradient of every sample that was asked."""
        problem = self._problem
        for probe in self.probes:
            with torch.no_grad():
                found = self._norms(probe.deltas)
            verify(
                found,
                probe.sample,
                probe.leaves,
                problem.parameters,
                problem.structured,
                problem.name,
            )
        if len(self.losses) > 1:  # one sample alone has other operations
            self._log_fallbacks()

    def _log_fallbacks(self) -> None:
        for use in self._uses:
            if use.rule is None:
                size = sum(p.numel() * p.element_size() for p in use.parameters)
                logger.info(
                    "no rule for %s with %s: exact per-sample gradients by torch.func, "
                    "%.3g MB a sample, at most %.3g MB at a time",
                    use.name,
                    ", ".join(self._problem.name(p) for p in use.parameters),
                    size / 2**20,
                    max(self._memory, size) / 2**20,
                )


def _terms(
    use: Use, arguments: tuple[tuple[Any, ...], dict[str, Any]], deltas: Sequence[Tensor]
) -> list[Contribution] | None:
    """What the rule gives, or None where there is none or it leaves a parameter out."""
    if use.rule is None:
        return None
    args, kwargs = mapped_arguments(lambda v: v.tensor, arguments, Sample)
    delta = deltas[0] if len(deltas) == 1 else tuple(deltas)
    terms = use.rule(delta, *args, **kwargs)
    if terms is None:
        return None
    if isinstance(use.operation, type):
        named = dict(args[0].named_parameters())
    else:
        names = _names(use.rule)
        named = dict(zip(names, (delta, *args), strict=False)) | kwargs
    places = [(name, p) for p in use.parameters for name, value in named.items() if value is p]
    if {id(p) for _, p in places} != {id(p) for p in use.parameters}:
        return None
    if any(name not in terms for name, _ in places):
        return None
    return [contribution(p, terms[n]() if callable(terms[n]) else terms[n]) for n, p in places]


@lru_cache(maxsize=256)
def _names(rule: Rule) -> tuple[str, ...]:
    return tuple(inspect.signature(rule).parameters)


def _refuse_overwritten(use: Use) -> None:
    for tensor, version in use.versions:
        if tensor._version != version:
            raise RuntimeError(
                f"an input of {use.name}, of shape {tuple(tensor.shape)}, was modified in place "
                f"after it was used: per-sample gradients need its value; use the out-of-place "
                f"operation there"
            )
