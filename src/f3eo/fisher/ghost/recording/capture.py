"""The mode that records every operation in which a parameter meets samples.

A tensor carries samples, derives from parameters alone (views, reparametrisations, position
tables), or is constant (`roles.py`). An operation on tensors of the first two roles is a `Use`: its
parameters have a per-sample gradient there. Operations are observed at the level of torch
functions, so a tied, packed, bare or reparametrised parameter and a module that is called twice are
several uses of one tensor, and need no special case.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.utils.hooks import RemovableHandle

from f3eo.closure.eager import inside_checkpoint
from f3eo.closure.problem import Problem
from f3eo.curvature.cuts import Cuts
from f3eo.curvature.passes import HOOKED, HOOKS, TRANSFORMED
from f3eo.decompositions import Decomposed
from f3eo.decompositions.mode import Call, flat
from f3eo.fisher.ghost.recording.kinks import KINKED, RELU, UNFROZEN, Kink, piece_of
from f3eo.fisher.ghost.recording.order import INDEXING, reordered, takes_one_row
from f3eo.fisher.ghost.recording.refusals import REFUSABLE, refuse, refuse_out
from f3eo.fisher.ghost.recording.repetition import (
    COPIES,
    EXPANSIONS,
    FILLS,
    expands,
    fills,
    grows_first,
)
from f3eo.fisher.ghost.recording.roles import InputRoles, Role, Roles, Sources
from f3eo.fisher.ghost.recording.use import Use
from f3eo.fisher.ghost.registry import MODULES, RULES

WRITTEN = "parameters are written into other tensors"
CHECKPOINT = "parameters are used under activation checkpointing"
MODULE_RULE = "a module has a layer rule of its own"
MOVING = "an operation has kinks that move (max, sort, hardswish, a clamp between activations)"

REPEATING = COPIES | EXPANSIONS | FILLS | INDEXING
"""Operations whose result may have a row for every sample, or one row of such a tensor."""


class Capture(Decomposed):
    """Context manager around the recorded forward pass; its attributes hold the record.

    Args:
        problem: see `Roles`.
        differentiable: see `Decomposed`.
    """

    def __init__(self, problem: Problem, *, differentiable: bool) -> None:
        super().__init__(differentiable=differentiable)
        self.uses: list[Use] = []
        self.deriving: set[int] = set()
        """Numbers of the calls that compute a tensor from parameters alone."""
        self.kinks: dict[int, Kink] = {}
        """Pieces of piecewise linear operations, by the number of the call."""
        self.cuts = Cuts()
        self.generators: dict[torch.Generator, Tensor] = {}
        """The user's generators that the pass draws from, and their states before."""
        self.dtypes: set[torch.dtype] = set()
        """Of all results with a gradient."""
        self.obstacle: str | None = None
        """Why replaying the calls does not reproduce the pass, or None."""
        self._roles = Roles(problem)
        self._model = problem.model
        self._permuted = False
        self._calls = 0
        self._hooks: list[RemovableHandle] = []
        self._inside = 0

    def __enter__(self) -> "Capture":
        self._roles.mark_batch()
        modules = self._model.modules() if self._model is not None and MODULES else ()
        for module in modules:
            if type(module) in RULES:
                self._hooks.append(module.register_forward_pre_hook(self._enter_module))
                self._hooks.append(
                    module.register_forward_hook(self._leave_module, with_kwargs=True)
                )
        return super().__enter__()

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        for hook in self._hooks:
            hook.remove()
        self._roles.unmark_batch()

    def run(self, call: Call) -> Any:
        """See `Decomposed.run`."""
        func = call.func
        if self._inside:
            return func(*call.args, **call.kwargs)
        self._calls += 1
        if func in REFUSABLE:
            refuse(self._model, call)
        if (generator := call.kwargs.get("generator")) is not None:
            self.generators.setdefault(generator, generator.get_state())
        written, inputs = call.writes, call.tensors
        version = inputs[0]._version if func in KINKED and inputs else 0
        roles = self._roles.of(inputs)
        sampled, sources, repeated = roles.samples, roles.sources, False
        if written:
            self.cuts.before_write(call)

        if sampled and sources:
            result = self._meet(call, roles.each)
        else:
            result = func(*call.args, **call.kwargs)
        if func in REPEATING:
            result, sampled, repeated = self._follow_repetition(call, roles, result)
        if sampled and not (isinstance(result, Tensor) and result.grad_fn is not None):
            self._keep_cut(call, result)
        if sampled and (func in KINKED or func in UNFROZEN):
            self._keep_piece(call, result, version)
        # Hooks of torch itself, such as those of its counters, do not change gradients.
        if func in HOOKS and not getattr(call.args[1], "__module__", "").startswith("torch."):
            self._refuse_replay(HOOKED)

        role = Role.SAMPLES if sampled else sources or Role.CONSTANT
        order = None
        if sampled and (self._permuted or func in INDEXING):
            order = self._order(call)
        for output in [result] if isinstance(result, Tensor) else flat((result,)):
            if output.requires_grad:
                self.dtypes.add(output.dtype)
                if sources and not sampled:
                    self.deriving.add(self._calls)
        self._roles.mark(result, role, order, repeated)
        if written and role is not Role.CONSTANT:
            if sources:
                self._refuse_replay(WRITTEN)
            self._roles.mark(call.args[0] if result is None else inputs[0], role, order)
            if inputs[0]._base is not None:
                self._roles.mark(inputs[0]._base, role, order)
        return result

    def _meet(self, call: Call, roles: list[Role | Sources]) -> Any:
        """Run and record an operation in which parameters meet samples."""
        args, kwargs = call.args, call.kwargs
        if call.func is Tensor.__setitem__:
            # The parameter as a sum with the zeros that it replaces: a use like any other.
            value = torch.zeros_like(args[0][args[1]])
            self._roles.mark(value, Role.SAMPLES)
            value = self.observe(Tensor.add, (value, args[2]), {})
            return call.func(args[0], args[1], value)
        if call.writes and (functional := call.out_of_place) is not None:
            # Out of place on a copy, so that input and output stay apart.
            copied = Call.of(functional, (args[0].clone(), *args[1:]), kwargs)
            result = copied.func(*copied.args, **kwargs)
            self._record(copied, copied.tensors, roles, result)
            return call.tensors[0].copy_(result)
        return self._use(call, roles, call.func(*args, **kwargs))

    def _use(self, call: Call, roles: list[Role | Sources], result: Any) -> Any:
        """Record an operation that was run, and give its result."""
        if isinstance(result, Tensor) and result._is_view():
            # A write to the view would rebase its node, and with it the graph edge.
            result = result.clone()
        self._record(call, call.tensors, roles, result)
        return result

    def _record(
        self, call: Call, tensors: list[Tensor], roles: list[Role | Sources], result: Any
    ) -> None:
        if call.kwargs:
            refuse_out(call)
        parameters: dict[int, Tensor] = {}
        sources: dict[int, Sources] = {}
        for tensor, role in zip(tensors, roles, strict=True):
            if isinstance(role, frozenset) and tensor.requires_grad:
                parameters[id(tensor)], sources[id(tensor)] = tensor, role
        outputs = [result] if isinstance(result, Tensor) else flat((result,))
        places = [k for k, t in enumerate(outputs) if t.requires_grad]
        if not places or not parameters:
            return
        self.uses.append(
            Use(
                call=call,
                number=self._calls,
                rule=RULES.get(call.func),
                sampled=[role is Role.SAMPLES for role in roles[: len(call.tensors)]],
                parameters=list(parameters.values()),
                sources=list(sources.values()),
                outputs=places,
                edges=[get_gradient_edge(outputs[k]) for k in places],
                shapes=[outputs[k].shape for k in places],
                strides=[outputs[k].stride() for k in places],
                versions=[(t, t._version) for t in tensors],
                order=self._first_order(tensors) if self._permuted else None,
            )
        )
        if inside_checkpoint():
            self._refuse_replay(CHECKPOINT)

    def _follow_repetition(
        self, call: Call, roles: InputRoles, result: Any
    ) -> tuple[Any, bool, bool]:
        """Tell whether one of `REPEATING` gives a tensor with a row for every sample.

        Returns:
            The result, whether it carries samples, and whether it repeats a constant.
        """
        func, inputs, count = call.func, call.tensors, self._roles.samples
        if func in COPIES or func in INDEXING:
            if not (roles.samples and self._roles.is_repeated(inputs[0])):
                return result, roles.samples, False
            # One row of a constant that is repeated for every sample is the constant.
            return result, not takes_one_row(func, call.args), func in COPIES
        if func in FILLS:
            return result, roles.samples or fills(result, count), False
        recorded = roles.samples and bool(roles.sources)
        if recorded or not expands(func, inputs[0], result, count):
            return result, roles.samples, False
        if roles.sources:
            return self._use(call, roles.each, result), True, False
        return result, True, grows_first(inputs[0], result, count)

    def _keep_cut(self, call: Call, result: Any) -> None:
        self.cuts.keep(self._calls, call, result)
        if self.cuts.transformed:
            self._refuse_replay(TRANSFORMED)

    def _keep_piece(self, call: Call, result: Any, version: int) -> None:
        """Keep the piece that a piecewise linear operation is on, or note that there is none."""
        func, inputs = call.func, call.tensors
        if func in UNFROZEN:
            if self._calls not in self.cuts.kept and any(t.requires_grad for t in inputs):
                self._refuse_replay(MOVING)
        elif inputs and inputs[0].is_floating_point() and isinstance(result, Tensor):
            if any(t.requires_grad for t in inputs[1:]):  # a bound that moves moves the kink
                self._refuse_replay(MOVING)
            if inside_checkpoint():
                self._refuse_replay(CHECKPOINT)
            first = piece_of(func, inputs[0], result)
            self.kinks[self._calls] = Kink(first, first._version if func in RELU else version)

    def _order(self, call: Call) -> Tensor | None:
        """The order of the samples in the result of a call."""
        if call.func not in INDEXING:
            return self._first_order(call.tensors)
        order = reordered(call, self._roles.order(call.tensors[0]), self._roles.samples)
        self._permuted = self._permuted or order is not None
        return order

    def _first_order(self, tensors: list[Tensor]) -> Tensor | None:
        return next((o for t in tensors if (o := self._roles.order(t)) is not None), None)

    def _refuse_replay(self, reason: str) -> None:
        self.obstacle = self.obstacle or reason

    def _enter_module(self, module: nn.Module, args: Any) -> None:
        self._inside += 1

    def _leave_module(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        self._inside -= 1
        if not self._inside:
            self._roles.mark(result, Role.SAMPLES)
            self._refuse_replay(MODULE_RULE)
            call = Call.of(type(module), (module, *args), kwargs)
            tensors = [*call.tensors, *module.parameters()]
            self._record(call, tensors, self._roles.of(tensors).each, result)
