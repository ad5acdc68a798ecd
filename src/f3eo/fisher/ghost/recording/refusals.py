"""Forms of operations that have no per-sample gradients, or none that can be recorded."""

import torch.nn.functional as F
from torch import nn
from torch.overrides import resolve_name

from f3eo.closure.mixing import refuse_mixing
from f3eo.decompositions.mode import Call

REFUSABLE = {F.batch_norm, F.embedding}
"""Operations that `refuse` looks at."""


def refuse(model: nn.Module | None, call: Call) -> None:
    """Refuse batch statistics and sparse gradients.

    Raises:
        ValueError: with the cure.
    """
    args, kwargs = call.args, call.kwargs
    if call.func is F.batch_norm and (kwargs.get("training") or (len(args) > 5 and args[5])):
        refuse_mixing(model, "the per-sample trace")
    if call.func is F.embedding and (kwargs.get("sparse") or kwargs.get("scale_grad_by_freq")):
        raise ValueError(
            "an Embedding with sparse=True or scale_grad_by_freq=True has no per-sample gradient "
            "here: construct it with both False"
        )


def refuse_out(call: Call) -> None:
    """Refuse a use that writes into a tensor given as out=.

    Raises:
        NotImplementedError: with the cure.
    """
    if call.kwargs.get("out") is not None:
        raise NotImplementedError(
            f"{resolve_name(call.func)} writes a parameter into a tensor that carries samples, "
            f"which cannot be followed: build that tensor with torch.cat, torch.where or a "
            f"sum, or use estimator=Sign()"
        )
