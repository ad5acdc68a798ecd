"""Find the layouts of all outputs of a pass: known ones, or by probing single samples."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from f3eo.closure.problem import Problem
from f3eo.fisher.ghost.evidence import (
    PROBES,
    Evidence,
    Probe,
    evidence,
    undecided_sample,
)
from f3eo.fisher.ghost.gradients.norms import norms
from f3eo.fisher.ghost.recording.layout import Layout
from f3eo.fisher.ghost.recording.recording import Recording
from f3eo.fisher.ghost.verify import refuse_hooks, verify

logger = logging.getLogger("f3eo")

Known = dict[Any, list[Evidence]]
"""Evidence of earlier batches, by the signature of the pass."""


class Layouts:
    """The layouts of one recorded pass.

    Args:
        recording: the pass.
        problem: closure, batch and parameters.
        memory: bytes that per-sample gradients written out may take at a time.
        known: evidence of earlier batches; that of this batch is added once it is verified.
        check: whether single samples are probed although all layouts are known.
    """

    def __init__(
        self, recording: Recording, problem: Problem, memory: int, known: Known, *, check: bool
    ) -> None:
        self._recording = recording
        self._problem = problem
        self._memory = memory
        self._known = known
        self._signature = _signature(recording)
        self._evidence = None if check else known.get(self._signature)
        self.known = self._evidence is not None
        """Whether an earlier batch gave evidence."""
        self.complete = self.known and all(e.complete for e in self._evidence or ())
        """Whether that evidence leaves no layout open."""
        self._layouts: list[list[Layout]] | None = None
        self.probes: list[Probe] = []
        """Single samples that were probed in this batch."""

    def find(self, deltas: Sequence[Tensor | None]) -> list[list[Layout]] | None:
        """The layouts of all outputs of all uses.

        Args:
            deltas: gradients of the whole batch in these outputs.

        Returns:
            None where gradients are not finite: they tell nothing, and there are no norms.

        Raises:
            ValueError: operations whose samples mix.
            RuntimeError: per-sample gradients that do not add up to a sample's own gradient.
        """
        if self._agreed(self._evidence is None or self._open(self._evidence, deltas)):
            probed = self._probe(deltas)
            if probed is None:
                return None
            self._evidence, self._layouts = probed, None
            self.complete = all(e.complete for e in probed)
            self._verify(self._current(probed))
            self._known[self._signature] = probed  # not before: a refused step is probed again
        assert self._evidence is not None
        return self._current(self._evidence)

    def _agreed(self, wanted: bool) -> bool:
        """Whether any process that measures this batch wants something; here there is one."""
        return wanted

    def _current(self, known: list[Evidence]) -> list[list[Layout]]:
        """The likeliest layout of every output, in the order of this batch."""
        if self._layouts is None:
            self._layouts = []
            for item, use in zip(known, self._recording.uses, strict=True):
                self._layouts.append([])
                for first, *_ in item.fitting:
                    reordered = use.order is not None or first.order is not None
                    self._layouts[-1].append(first.at(use.order) if reordered else first)
        return self._layouts

    def _open(self, known: list[Evidence], deltas: Sequence[Tensor | None]) -> bool:
        """Whether layouts that differ in this batch are undecided."""
        if self._problem.repeatable or self.complete:  # a recorded graph has no values to look at
            return False
        samples = len(self._recording.output.losses)
        return undecided_sample(self._recording.uses, known, deltas, samples) is not None

    def _probe(self, deltas: Sequence[Tensor | None]) -> list[Evidence] | None:
        """Evidence from gradients of single samples; None where one is not finite."""
        losses, uses = self._recording.output.losses, self._recording.uses
        edges, leaves = self._recording.edges, self._problem.parameters
        samples, known = len(losses), list[Evidence]()
        refuse_hooks(leaves, self._problem.name)
        self.probes = []
        first = [0, samples - 1] if samples > 1 else [0]
        factor = self._problem.factor
        factor = 1.0 if factor == 1 else factor / samples
        along = None if factor == 1 else losses.new_tensor(factor)
        while len(self.probes) < PROBES:
            probed = [probe.sample for probe in self.probes]
            i = first.pop(0) if first else undecided_sample(uses, known, deltas, samples, probed)
            if not self._agreed(i is not None):
                break
            i = 0 if i is None else i
            gradients = torch.autograd.grad(  # pyright: ignore[reportCallIssue]
                losses[i],
                [*edges, *leaves],  # pyright: ignore[reportArgumentType]
                along,
                retain_graph=True,
                allow_unused=True,
            )
            finite = all(bool(g.isfinite().all()) for g in gradients if g is not None)
            if self._agreed(not finite):
                return None
            own = gradients[: len(edges)], gradients[len(edges) :]
            self.probes.append(Probe(i, factor, *own))
            if not first:
                known = evidence(uses, self.probes, samples)
        return known

    def _verify(self, layouts: list[list[Layout]]) -> None:
        """Compare what the uses add up to with the gradient of every probed sample."""
        problem, recording = self._problem, self._recording
        for probe in self.probes:
            with torch.no_grad():
                sums = norms(recording, layouts, probe.deltas, problem, self._memory)
            verify(
                sums,
                probe.sample,
                probe.leaves,
                problem.parameters,
                problem.structured,
                problem.name,
            )
        if len(recording.output.losses) > 1:  # one sample alone runs other operations
            self._log_fallbacks()

    def _log_fallbacks(self) -> None:
        for use in self._recording.uses:
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


def _signature(recording: Recording) -> Any:
    """Equal for passes whose outputs keep the samples in the same places."""
    uses = [
        (use.call.func, tuple(map(len, use.shapes)), tuple(use.sources)) for use in recording.uses
    ]
    return len(recording.output.losses) == 1, *uses
