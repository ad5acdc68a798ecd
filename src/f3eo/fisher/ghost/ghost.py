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
from f3eo.evaluation import Output, Problem, check_reached, evaluate
from f3eo.fisher.ghost.arguments import mapped_arguments
from f3eo.fisher.ghost.capture import Capture
from f3eo.fisher.ghost.fallback import Sample, fallback
from f3eo.fisher.ghost.gathered import Gathered, gather
from f3eo.fisher.ghost.layout import Layout, find
from f3eo.fisher.ghost.norms import Contribution, Norms, contribution, norms
from f3eo.fisher.ghost.perturbed import SecondPass, place
from f3eo.fisher.ghost.registry import Rule
from f3eo.fisher.ghost.use import Use
from f3eo.fisher.ghost.verify import verify

logger = logging.getLogger("f3eo")

Layouts = list[list[Layout]]


class Ghost:
    """One forward pass of a problem with the uses of its parameters.

    Args:
        problem: closure, batch and parameters.
        memory: bytes that per-sample gradients written out may take at a time.
        known: layouts found before, by signature of the recorded uses; new ones are added after
            they have been found and checked against the gradients of single samples.
        twice: whether norms are to be differentiated; without, fused kernels do.

    Raises:
        ValueError: operations whose samples mix.
        RuntimeError: per-sample gradients that do not add up to a sample's own gradient.
    """

    def __init__(
        self, problem: Problem, memory: int, known: dict[Any, Layouts], *, twice: bool = True
    ) -> None:
        self._problem = problem
        self._memory = memory
        self._twice = twice
        self._capture = Capture(problem.parameters, problem.batch, problem.model, twice=twice)
        self.output: Output = evaluate(problem, per_sample=True, twice=twice, mode=self._capture)
        self.losses = self.output.losses
        self._uses = self._capture.uses
        check_reached(self._uses, problem.parameters)
        self._layouts = self._find_layouts(known)

    def norms(self, outputs: Tensor, cotangent: Tensor | None = None) -> Norms:
        """‖J_iᵀ c_i‖² for every sample i, J_i the Jacobian of `outputs` of sample i.

        Args:
            outputs: (B, …), samples independent of one another.
            cotangent: c in the same shape, may depend on the parameters; default ones.
        """
        if len(self.losses) == 0:
            return Norms(outputs.flatten(1).sum(1) if outputs.ndim > 1 else outputs, {})
        if self._layouts is None:
            nan = {id(p): torch.full_like(p, torch.nan) for p in self._problem.parameters}
            return Norms(torch.full_like(self.losses, torch.nan), nan)
        edges = [edge for use in self._uses for edge in use.edges]
        cotangent = torch.ones_like(outputs) if cotangent is None else cotangent
        deltas = torch.autograd.grad(
            outputs,
            edges,
            cotangent,
            create_graph=True,
            retain_graph=True,
            allow_unused=True,
        )
        return self._norms(deltas)

    def gathered(self) -> tuple[Gathered, SecondPass] | str:
        """Norms, totals and gradients of ω_i ℓ_i and what a second pass needs beside them.

        Or what stands against a second pass. The recorded tensors are forgotten, each as soon as
        its gradients are there.
        """
        if self._layouts is None:
            nan = {id(p): torch.full_like(p, torch.nan) for p in self._problem.parameters}
            return Gathered(torch.full_like(self.losses, torch.nan), nan, {}, 1.0), self._recorded()
        if not self._capture.repeatable or any(len(use.shapes) > 1 for use in self._uses):
            return (
                "parameters are written into other tensors, used by a module with its own rule or "
                "under activation checkpointing, or an operation has kinks that move (max, sort, "
                "hardswish, a clamp between activations)"
            )
        if any(t._version != version for t, version in self._capture.kinks.values()):
            return "a piecewise linear operation's argument or result is written to afterwards"
        edges = [edge for use in self._uses for edge in use.edges]
        derived = any(self._capture.derives(p) for use in self._uses for p in use.parameters)
        shares = self.output.shares.like(self.losses)
        deltas = torch.autograd.grad(
            self.losses, edges, shares, retain_graph=derived, allow_unused=True
        )
        # Of the forward pass, where one part may work in another precision than the losses.
        unit = max(torch.finfo(t.dtype).eps for t in (self.losses, *deltas) if t is not None)
        if unit > torch.finfo(torch.float32).eps:
            return "the closure works in 16 bits, too coarse for differences"
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
            return (
                f"per-sample gradients take more than memory={self._memory} bytes; a smaller batch "
                f"(chunk=) or more memory would do"
            )
        return found, recorded

    def _recorded(self) -> SecondPass:
        uses = list(zip(self._uses, self._layouts, strict=True)) if self._layouts else []
        derives, counts = self._capture.derives, Counter[int]()
        for p in (p for use, _ in uses for p in use.parameters):
            counts.update(dict.fromkeys(self._capture.sources(p), 2 if derives(p) else 1))
        cuts = {k: t for k, (t, version) in self._capture.cuts.items() if t._version == version}
        return SecondPass(
            places={use.call: place(use, layouts) for use, layouts in uses},
            derived=self._capture.derived,
            kinks={call: first for call, (first, _) in self._capture.kinks.items()},
            cuts=cuts,
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
            tensor = tensor if self._twice else tensor.detach()
            return layouts[0].split_argument(tensor, use.shapes[0], samples, use.operation)

        arguments = mapped_arguments(
            lambda t: Sample(split(t)) if id(t) in use.sampled else t,
            (use.args, use.kwargs),
        )
        if (terms := _terms(use, arguments, parts)) is not None:
            return terms
        return [fallback(use, arguments, parts)]

    def _find_layouts(self, known: dict[Any, Layouts]) -> Layouts | None:
        """Layouts of all uses, known or found by the gradients of the first and last sample.

        None where these gradients are not finite: nothing can be found then, and no norm is.
        """
        samples = len(self.losses)
        if samples < 2:
            return [[Layout(0) for _ in use.shapes] for use in self._uses]
        sources = self._capture.sources
        signature = tuple(
            (use.operation, tuple(map(len, use.shapes)), tuple(map(sources, use.parameters)))
            for use in self._uses
        )
        if signature in known:
            return known[signature]
        edges = [edge for use in self._uses for edge in use.edges]
        leaves = self._problem.parameters
        probes = []
        for i in (0, samples - 1):
            gradients = torch.autograd.grad(  # pyright: ignore[reportCallIssue]
                self.losses[i],
                [*edges, *leaves],  # pyright: ignore[reportArgumentType]
                retain_graph=True,
                allow_unused=True,
            )
            if not all(bool(g.isfinite().all()) for g in gradients if g is not None):
                return None
            probes.append((i, gradients[: len(edges)], gradients[len(edges) :]))
        self._layouts = find(self._uses, [(i, deltas) for i, deltas, _ in probes], samples)
        for i, deltas, expected in probes:
            with torch.no_grad():
                found = self._norms(deltas)
            problem = self._problem
            verify(found, i, expected, leaves, problem.structured, problem.name)
        known[signature] = self._layouts
        self._log_fallbacks()
        return self._layouts

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
