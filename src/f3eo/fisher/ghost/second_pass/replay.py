"""The second pass: the forward pass at shifted parameters, W + s_i G_i for sample i.

It calls the same torch functions as the recorded pass, one by one. Where parameters meet samples,
the operation runs on each sample's own parameters.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import resolve_name

from f3eo.decompositions import Decomposed
from f3eo.decompositions.mode import Call, flat
from f3eo.fisher.ghost.each_sample import each_sample
from f3eo.fisher.ghost.recording.kinks import KINKED, on_piece
from f3eo.fisher.ghost.recording.repetition import EXPANSIONS
from f3eo.fisher.ghost.registry import SHIFTED
from f3eo.fisher.ghost.second_pass.shifted import Derived, SampleParameter
from f3eo.fisher.ghost.second_pass.tape import Tape, TapedUse


class SecondPass(Decomposed):
    """Context manager around the second forward pass.

    Args:
        tape: what it replays of the first.
        parameters: W_i of the shifted leaves, by the leaf's id.
    """

    def __init__(self, tape: Tape, parameters: Mapping[int, SampleParameter]) -> None:
        super().__init__(differentiable=False)
        self._tape = tape
        self._parameters = dict(parameters)
        self._calls = 0

    def run(self, call: Call) -> Any:
        """See `Decomposed.run`."""
        self._calls += 1
        tape, number = self._tape, self._calls
        if number in tape.deriving:
            return self._derive(call)
        if number in tape.kinks and call.func in KINKED:
            return on_piece(call.func, tape.kinks[number], call.args, call.kwargs)
        if number in tape.cuts.kept:
            return tape.cuts.repeat(number, call)
        if number in tape.uses:
            return self._shift(tape.uses[number], call)
        return call.func(*call.args, **call.kwargs)

    def _own(self, call: Call) -> list[SampleParameter | None]:
        """W_i in place of each tensor among the arguments that is shifted."""
        return [*map(self._parameters.get, map(id, call.tensors))]

    def _shift(self, use: TapedUse, call: Call) -> Any:
        """Run a use on each sample's own parameters."""
        own = self._own(call)
        if not any(own):
            return call.func(*call.args, **call.kwargs)
        if use.func is not call.func:
            raise RuntimeError(
                f"the closure ran {resolve_name(call.func)} where it ran {resolve_name(use.func)} "
                f"before: finite differences need a closure that does the same twice; use "
                f"PerSample(DoubleBackward())"
            )
        samples, result = self._tape.samples, None
        values: list[Any] = use.layout.split_arguments(
            call.tensors, use.sampled, use.shape, samples, use.func
        )
        for k, parameter in enumerate(own):
            if parameter is not None:
                values[k] = parameter
        if use.func in EXPANSIONS:
            result = _repeat(use, values[0], samples)
        elif (function := SHIFTED.get(use.func)) is not None:
            args, kwargs = call.substituted(values)
            result = function(*args, **kwargs)
        if result is None:
            result = over_samples(call, values, use.sampled)
        return use.layout.join(result, use.stride)

    def _derive(self, call: Call) -> Any:
        """Run a call on shared parameters, and on each sample's own."""
        result = call.func(*call.args, **call.kwargs)
        own = self._own(call)
        if any(own):
            values = [p or t for p, t in zip(own, call.tensors, strict=True)]
            results = over_samples(call, values, [False] * len(values))
            for shared, value in zip(flat((result,)), flat((results,)), strict=True):
                self._parameters[id(shared)] = Derived(shared, value)
        return result


def _repeat(use: TapedUse, parameter: SampleParameter, samples: int) -> Tensor:
    """Each sample's own parameter, in place of one that is repeated for every sample."""
    own = parameter.tensor()
    alone = use.layout.sizes(use.shape, samples)
    own = own.view(len(own), *(1,) * (len(alone) + 1 - own.ndim), *own.shape[1:])
    return own.repeat(1, *(a // o for a, o in zip(alone, own.shape[1:], strict=True)))


def over_samples(call: Call, values: Sequence[Any], sampled: Sequence[bool]) -> Any:
    """Run a call on every sample alone, by `torch.func.vmap`.

    Args:
        call: the operation with its arguments.
        values: in place of the tensors among the arguments; a tensor, or a `SampleParameter`.
        sampled: whether each is a tensor with samples, (B, …).
    """
    batched: dict[int, Tensor] = {}
    for k, value in enumerate(values):
        if isinstance(value, SampleParameter):
            batched[k] = value.tensor()
        elif sampled[k]:
            batched[k] = value

    def single(own: list[Tensor]) -> Any:
        filled = list(values)
        for k, value in zip(batched, own, strict=True):
            filled[k] = value
        args, kwargs = call.substituted(filled)
        return call.func(*args, **kwargs)

    return each_sample(single, [list(batched.values())], call.tensors)
