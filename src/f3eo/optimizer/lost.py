"""Micro-batches that a framework would lose, because it does not call `step` for them."""

import sys


def refuse_lost_micro_batches() -> None:
    """Refuse a step with a closure while Accelerate accumulates.

    Its optimizer hands `step` on at the last of k micro-batches alone: closures of the others are
    never called. Accelerate is not imported for this.

    Raises:
        RuntimeError: with k and the cure.
    """
    module = sys.modules.get("accelerate.state")
    if module is None:
        return
    shared = getattr(module.GradientState, "_shared_state", {})
    count = (shared.get("plugin_kwargs") or {}).get("num_steps", 1)
    if count > 1 and _called_from("accelerate.optimizer"):
        raise RuntimeError(
            f"step(closure) while Accelerate accumulates over {count} micro-batches "
            f"(gradient_accumulation_steps): it calls step for the last one alone, and the others "
            f"would be lost; call backward(optimizer, closure, *batch) of "
            f"f3eo.integrations.accelerate for every one, and optimizer.step() without arguments"
        )


def _called_from(module: str, depth: int = 12) -> bool:
    """Whether one of the callers, this many frames up at most, stands in a module."""
    frame = sys._getframe(1)
    for _ in range(depth):
        frame = frame.f_back if frame is not None else None
        if frame is not None and frame.f_globals.get("__name__") == module:
            return True
    return False
