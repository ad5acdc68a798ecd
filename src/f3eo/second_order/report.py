"""What a second-order step did."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """One step, accepted or not.

    Args:
        loss_before: L(θ), mean over the batch.
        loss_after: L(θ + d) on the same batch and with the same random numbers; also of a step that
            was then taken back.
        predicted: m(0) − m(d), the reduction that the quadratic model promised.
        actual: loss_before − loss_after.
        ratio: actual over predicted (`f3eo.second_order.damping` has the exact form).
        damping: λ that the step was computed with; 0.0 for a trust region.
        radius: Δ that the step was computed with; inf without a trust region.
        iterations: products with the curvature that conjugate gradients made, over all blocks.
        negative_curvature: ⟨p, B p⟩/⟨p, p⟩ < 0 of the direction that was met, 0.0 if none was.
        accepted: whether the parameters moved.
    """

    loss_before: float
    loss_after: float
    predicted: float
    actual: float
    ratio: float
    damping: float
    radius: float
    iterations: int
    negative_curvature: float
    accepted: bool
