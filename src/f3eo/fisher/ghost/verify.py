"""Check the recorded uses against the gradient of one sample, so that no wrong number is silent."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from f3eo.fisher.ghost.gradients.norms import Norms
from f3eo.tensors import squared_norm

TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-2, torch.bfloat16: 0.2, torch.float16: 0.2}
"""Largest relative difference by rounding; wrong layer rules and mixed samples give more."""

UNDERFLOW = 1e-30
"""Below this, squares of single-precision gradients lose their digits."""


def refuse_hooks(
    parameters: Sequence[Tensor], name: Callable[[Tensor], str], *, called: bool = False
) -> None:
    """Refuse hooks on the gradients of parameters.

    They act on a batch's gradient and not on single samples', and on H v as if it were a gradient.
    Those after accumulation are never called, since nothing is accumulated.

    Args:
        parameters: that may have hooks.
        name: of one of them.
        called: whether plain autograd makes the gradient, which calls `register_hook`'s.

    Raises:
        ValueError: names the parameter and the cure.
    """
    for p in parameters:
        after = getattr(p, "_post_accumulate_grad_hooks", None)
        if after or (p._backward_hooks and not called):
            kind = "register_post_accumulate_grad_hook" if after else "register_hook"
            raise ValueError(
                f"{name(p)} has a hook on its gradient ({kind}), which has no meaning for "
                f"those of single samples and for h: remove it; to clip use max_norm=, to change "
                f"gradients a hook of the base (optimizer.base.register_step_pre_hook); optimizers "
                f"that step from such hooks (LOMO) cannot be a base"
            )


def verify(
    sums: Norms,
    sample: int,
    expected: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
    structured: Sequence[bool],
    name: Callable[[Tensor], str],
) -> None:
    """Compare what the uses add up to with ∇ℓ_i, its squared norm, and zero for other samples.

    Args:
        sums: norms and totals from the gradients of ℓ_i alone.
        sample: i.
        expected: ∇ℓ_i by autograd, None where ℓ_i does not depend on a parameter.
        parameters, structured: the leaves, and whether they count in the norm.
        name: of a parameter, for the message.

    Raises:
        RuntimeError: names the parameter whose gradient differs.
    """
    present = [(p, g) for p, g in zip(parameters, expected, strict=True) if g is not None]
    if not present:
        return
    scale = float(squared_norm([g for _, g in present]).sqrt())
    for p, g in present:
        total = sums.totals.get(id(p), torch.zeros_like(g)).to(g.dtype)
        allowed = TOLERANCE.get(g.dtype, 1e-2) * max(float(g.norm()), 1e-4 * scale)
        if float((total - g).norm()) > allowed + UNDERFLOW:
            raise RuntimeError(
                f"the per-sample gradients of {name(p)} do not add up to its gradient "
                f"(‖difference‖ {float((total - g).norm()):.3g}, ‖gradient‖ "
                f"{float(g.norm()):.3g}): some use of it is hidden from torch functions (custom "
                f"autograd.Function, torch.jit, an extension) or draws other random "
                f"numbers when repeated, or a hook changes it; register a rule for that module, or "
                f"use estimator=Sign()"
            )
    counted = [g for g, s in zip(expected, structured, strict=True) if s and g is not None]
    norm = float(squared_norm(counted))
    wrong = sums.squared.clone()
    wrong[sample] -= norm
    tolerance = max(TOLERANCE.get(g.dtype, 1e-2) for _, g in present)
    if float(wrong.abs().max()) > 2 * tolerance * max(norm, 1e-4 * scale**2) + UNDERFLOW:
        raise RuntimeError(
            f"the squared gradient norm of sample {sample} is {norm:.6g}, its uses give "
            f"{float(sums.squared[sample]):.6g} (and up to "
            f"{float(wrong.abs().max()):.3g} for others): an operation mixes samples or a rule "
            f"is wrong; please report it, and use estimator=Sign() meanwhile"
        )
