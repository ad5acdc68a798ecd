"""Per-sample gradients from one forward pass and the gradients in pre-activations alone.

The stages: record the forward pass (`recording`), find where its outputs keep the samples
(`layouts`), compute the per-sample gradients of every use (`gradients.per_use`), and add them up:
as differentiable norms (`gradients.norms`), or kept for a second pass (`gradients.kept`).

Goodfellow 2015 (1510.01799) has the norms of linear layers; here they are those of every operation,
tied and reused parameters included, and differentiable: ½∇ of their mean is (1/B) Σ H_i g_i by one
more backward pass.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

import f3eo.fisher.ghost.rules  # noqa: F401  (registers the layer rules)
from f3eo.closure.graph import contents
from f3eo.closure.output import Output, Shares
from f3eo.closure.problem import Problem
from f3eo.closure.residuals import residuals
from f3eo.curvature.guard import NotRepeatable, custom
from f3eo.fisher.ghost.evidence import Probe
from f3eo.fisher.ghost.gradients.contribution import grouped
from f3eo.fisher.ghost.gradients.forms import Form, forms
from f3eo.fisher.ghost.gradients.kept import KeptGradients, keep, not_finite_kept, terms_of
from f3eo.fisher.ghost.gradients.norms import Norms, norms, not_finite
from f3eo.fisher.ghost.gradients.per_use import per_use_gradients
from f3eo.fisher.ghost.gradients.terms import Term
from f3eo.fisher.ghost.layouts import Layouts
from f3eo.fisher.ghost.recording.recording import Recording
from f3eo.fisher.ghost.second_pass.tape import Tape, tape_of
from f3eo.fisher.metric import Diagonals


@dataclass(frozen=True)
class Residuals:
    """Residuals ∂ℓ/∂f that a second pass takes over, a tensor for every edge of f.

    Args:
        batch: S Σ_i ω_i ∂ℓ_i/∂f.
        probes: ∂ℓ_i/∂f of every probed sample, times the factor of the probe.
    """

    batch: list[Tensor]
    probes: list[list[Tensor]]


@dataclass(frozen=True)
class FirstPass:
    """What a second pass needs of the first.

    Args:
        losses: ℓ_i, detached.
        shares: ω_i.
        probes: single samples that were probed, if this pass was a check.
        gradients: norms, totals and moves of ω_i ℓ_i.
        diagonals: D of the structured parameters.
        tape: what the second pass replays.
        residuals: see `Residuals`; None where they are not held.
        factor: S, of the losses whose gradients the moves and the residuals are.
    """

    losses: Tensor
    shares: Shares
    probes: Sequence[Probe]
    gradients: KeptGradients
    diagonals: Diagonals
    tape: Tape
    residuals: Residuals | None
    factor: float = 1.0


@dataclass(frozen=True)
class Ghost:
    """Per-sample gradients of one recorded forward pass.

    Args:
        problem: closure, batch and parameters.
        recording: the pass.
        layouts: of the pass.
        memory: bytes that per-sample gradients written out may take at a time.
        diagonals: D of the structured parameters.
        outputs: edges of f where the residuals ∂ℓ/∂f are held; None where they are not.
    """

    problem: Problem
    recording: Recording
    layouts: Layouts
    memory: int
    diagonals: Diagonals
    outputs: list[GradientEdge] | None = None

    @property
    def output(self) -> Output:
        """What the closure returned."""
        return self.recording.output

    @property
    def losses(self) -> Tensor:
        """ℓ_i with their graph, (B,)."""
        return self.recording.output.losses

    def loss_norms(self, cotangent: Tensor | None = None) -> Norms:
        """‖D ∇ℓ_i‖² c_i² for every sample i, differentiable with residuals held or not.

        Args:
            cotangent: c, (B,), default ones.
        """
        if self.outputs is None or not len(self.losses):
            return self.norms(self.losses, cotangent)
        return self._norms(self.outputs, residuals(self.losses, self.outputs, cotangent))

    def norms(self, outputs: Tensor, cotangent: Tensor | None = None) -> Norms:
        """‖D J_iᵀ c_i‖² for every sample i, J_i the Jacobian of `outputs` of sample i.

        Args:
            outputs: (B, …), samples independent of one another.
            cotangent: c in the same shape, may depend on the parameters; default ones.

        Raises:
            ValueError: operations whose samples mix.
            RuntimeError: per-sample gradients that do not add up to a sample's own gradient.
        """
        if len(self.losses) == 0:
            return Norms(outputs.flatten(1).sum(1) if outputs.ndim > 1 else outputs, {}, {})
        cotangent = torch.ones_like(outputs) if cotangent is None else cotangent
        return self._norms([outputs], [cotangent])

    def forms(
        self, form: Form, outputs: Tensor, cotangent: Tensor | None = None
    ) -> dict[int, Tensor]:
        """A form of the J_iᵀ c_i of every structured leaf that contributes, by the leaf's id.

        Args:
            form: `Squares()` or `Products(vectors)`, without D.
            outputs, cotangent: see `norms`; at least one sample.

        Raises:
            ValueError, RuntimeError: see `norms`.
        """
        cotangent = torch.ones_like(outputs) if cotangent is None else cotangent
        deltas = torch.autograd.grad(
            outputs, self.recording.edges, cotangent, retain_graph=True, allow_unused=True
        )
        layouts = self.layouts.find(deltas)
        if layouts is None:
            leaves, samples = self.problem.structured_parameters, len(self.losses)
            return {id(p): form.not_finite(p, samples) for p in leaves}
        return forms(form, self.recording, layouts, deltas, self.problem, self.memory)

    def _norms(self, outputs: Sequence[Any], cotangents: Sequence[Tensor]) -> Norms:
        deltas = torch.autograd.grad(
            outputs,
            self.recording.edges,
            cotangents,
            create_graph=self.recording.differentiable,
            retain_graph=True,
            allow_unused=True,
        )
        layouts = self.layouts.find(deltas)
        if layouts is None:
            return not_finite(self.problem, self.losses)
        with torch.set_grad_enabled(self.recording.differentiable):
            return norms(self.recording, layouts, deltas, self.problem, self.memory, self.diagonals)

    def terms(
        self,
        outputs: Tensor,
        cotangent: Tensor,
        hold: Callable[[Tensor, Term], bool],
        wanted: Collection[int] | None = None,
    ) -> dict[int, Term] | None:
        """J_iᵀ c_i for every sample i and parameter, detached; the graph is kept.

        Args:
            outputs: see `norms`.
            cotangent: c, in the shape of the outputs.
            hold: (parameter, closed form) → whether it is kept as it is, and not written out.
            wanted: ids of the parameters; default all.

        Returns:
            By the id of the parameter; None where those written out take more than `memory`.

        Raises:
            FloatingPointError: gradients are not finite.
            ValueError, RuntimeError: see `norms`.
        """
        edges, losses = self.recording.edges, self.losses
        deltas = torch.autograd.grad(
            [outputs], edges, [cotangent], retain_graph=True, allow_unused=True
        )
        layouts = self.layouts.find(deltas)
        if layouts is None:
            raise FloatingPointError(
                "gradients of single samples are not finite: look at the losses and the parameters"
            )
        uses, leaves = self.recording.uses, self.problem.parameters
        with torch.no_grad():
            contributions = per_use_gradients(uses, layouts, deltas, losses, attached=False)
            groups = grouped(contributions, leaves)
            if wanted is not None:
                groups = [g for g in groups if any(id(p) in wanted for p in g.leaves)]
            return terms_of(groups, slice(0, len(losses)), self.memory, hold)

    def keep(self) -> FirstPass:
        """Keep the gradients of ω_i ℓ_i and the tape; this object cannot be used afterwards.

        The recorded tensors are released, each as soon as its gradients are computed.

        Raises:
            NotRepeatable: why no second pass is possible.
            ValueError, RuntimeError: see `norms`.
        """
        recording, losses, shares = self.recording, self.losses, self.output.shares
        factor = self.problem.factor
        cotangent = shares.as_tensor(losses, factor)
        recording.refuse_replay()
        if not self.layouts.known and (names := contents(losses).custom):
            raise custom(names)
        # A derived parameter's gradient is pulled back through the graph, and so are probes.
        retain = bool(recording.deriving) or not self.layouts.complete
        edges = recording.edges
        held = None
        if self.outputs is not None:
            held = Residuals(residuals(losses, self.outputs, cotangent), [])
        roots: Sequence[Any] = self.outputs or [losses]
        along = [cotangent] if held is None else held.batch
        deltas: list[Tensor | None] = list(
            torch.autograd.grad(roots, edges, along, retain_graph=retain, allow_unused=True)
        )
        unit = recording.unit(deltas)
        layouts = self.layouts.find(deltas)
        if held is not None and self.outputs is not None:
            for probe in self.layouts.probes:
                along = None if probe.factor == 1 else losses.new_tensor(probe.factor)
                held.probes.append(residuals(losses[probe.sample], self.outputs, along))
        tape = tape_of(recording, layouts)
        if layouts is None:
            gradients = not_finite_kept(self.problem, losses)
        else:
            gradients = keep(
                recording, layouts, deltas, self.problem, self.memory, unit, self.diagonals
            )
        if gradients is None:
            raise NotRepeatable(
                f"per-sample gradients take more than memory={self.memory} bytes; a smaller "
                f"batch (chunk=) or more memory would do"
            )
        probes = self.layouts.probes
        rest = self.diagonals, tape, held
        own = losses.detach(), shares, probes, gradients.over(factor)
        return FirstPass(*own, *rest, factor)
