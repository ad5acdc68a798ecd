"""Report of one second-order step."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """Losses, predicted reduction and solver statistics of one step, accepted or not.

    Args:
        loss_before: L(θ), mean over the batch.
        loss_after: L(θ + d) on the same batch with the same random numbers, also if the step was
            then taken back.
        predicted: m(0) − m(d), the reduction that the quadratic model predicts.
        actual: loss_before − loss_after.
        ratio: ρ, actual over predicted (exact form in `f3eo.second_order.damping`).
        damping: λ that the step was computed with; 0.0 for a trust region.
        radius: Δ that the step was computed with; inf without a trust region.
        iterations: products B v of conjugate gradients, over all blocks.
        negative_curvature: ⟨p, B p⟩/⟨p, p⟩ < 0 of the direction p at which conjugate gradients
            stopped; 0.0 if there was none.
        accepted: whether the step was kept.
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
