"""Records every operation in which a parameter meets samples during one forward pass.

A tensor plays one of three roles: it carries samples, it derives from parameters alone (views,
reparametrisations, position tables), or it is constant. An operation that takes tensors of the
first two roles is a `Use`: its parameters have a per-sample gradient there. Operations are seen at
the level of torch functions, so tied, packed, bare and reparametrised parameters and modules
called twice need no
care of their own: they are several uses of one tensor.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.overrides import resolve_name
from torch.utils.hooks import RemovableHandle

from f3eo.arguments import flat, out_of_place, writes
from f3eo.closure import batch as batches
from f3eo.closure.eager import inside_checkpoint
from f3eo.closure.mixing import refuse_mixing
from f3eo.curvature.cuts import Cuts
from f3eo.curvature.passes import HOOKED, HOOKS, TRANSFORMED
from f3eo.decompositions import Decomposed
from f3eo.decompositions.normalisation import repeated
from f3eo.fisher.ghost.recording.indexing import INDEXING, index_of, takes_one_row
from f3eo.fisher.ghost.recording.kinks import BENT, KINKED, RELU, kept
from f3eo.fisher.ghost.recording.use import Use
from f3eo.fisher.ghost.registry import RULES, has_module_rules


class Role(Enum):
    """Role of a tensor that derives from no parameter; others hold the set of their sources."""

    SAMPLES = 1
    CONSTANT = 2


Sources = frozenset[int]
_MARK = "_f3eo_role"
_NONE: tuple[Any, Any, Any, bool] = (None, None, None, False)
EXPANSIONS = {
    repeated,
    torch.Tensor.expand,
    torch.Tensor.expand_as,
    torch.Tensor.repeat,
    torch.Tensor.broadcast_to,
    torch.broadcast_to,
}
REPETITIONS = {torch.Tensor.to, torch.Tensor.contiguous, torch.Tensor.clone, torch.Tensor.long}
_FILLS = {torch.zeros, torch.ones, torch.full, torch.empty, torch.rand, torch.randn}


WRITTEN = "parameters are written into other tensors"
CHECKPOINT = "parameters are used under activation checkpointing"
MODULE_RULE = "a module has a rule of its own"
MOVING = "an operation has kinks that move (max, sort, hardswish, a clamp between activations)"


class Capture(Decomposed):
    """Context manager around one forward pass.

    After it, `uses` holds the uses, `derived` the places (as `Use.call`) of the calls that made
    one parameter of others, `kinks` what keeps piecewise linear operations on their piece (and its
    version), `cuts` values without a gradient that were made of some with one,
    `generators` the generators that were drawn from and their states before, `dtypes` those of all
    results with a gradient, and `obstacle` why the calls alone do not repeat the pass, if so.

    Args:
        parameters: the leaves whose uses are recorded.
        batch: the closure's arguments, which carry samples. If there are none, every tensor from
            outside the forward pass that is no buffer of `model` counts as carrying samples.
        model: the module behind the closure, if known.
        differentiable: see `Decomposed`.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        batch: tuple[Any, ...],
        model: nn.Module | None,
        *,
        differentiable: bool,
    ) -> None:
        super().__init__(differentiable=differentiable)
        self.uses: list[Use] = []
        self.derived: set[int] = set()
        self.kinks: dict[int, tuple[Tensor, int]] = {}
        self.cuts = Cuts()
        self.generators: dict[torch.Generator, Tensor] = {}
        self.dtypes: set[torch.dtype] = set()
        self.obstacle: str | None = None
        self._permuted = False
        self._calls = 0
        self._leaves = {id(p): frozenset([id(p)]) for p in parameters if p.requires_grad}
        self._given = [t for t in batches.tensors(batch) if t.ndim]
        self._samples = batches.size(batch)
        self._model = model
        self._constants: set[int] = set()
        if model is not None and not self._given:
            self._constants = {id(t) for t in (*model.buffers(), *model.parameters())}
        self._hooks: list[RemovableHandle] = []
        self._inside = 0
        self._token = object()

    def __enter__(self) -> "Capture":
        for tensor in self._given:
            if tensor.layout is not torch.strided:
                raise ValueError(
                    f"the batch holds a tensor of shape {tuple(tensor.shape)} and layout "
                    f"{tensor.layout}: per-sample gradients need dense ones (to_dense()), or use "
                    f"estimator=Sign()"
                )
        for tensor in self._given:
            self._mark(tensor, Role.SAMPLES)
        modules = self._model.modules() if self._model is not None and has_module_rules() else ()
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
        for tensor in self._given:
            vars(tensor).pop(_MARK, None)

    def sources(self, tensor: Tensor) -> Sources:
        """Ids of the leaf parameters that a parameter-like tensor derives from."""
        role = self._role(tensor)
        return role if isinstance(role, frozenset) else frozenset()

    def derives(self, tensor: Tensor) -> bool:
        """Whether a tensor was made of parameters, and is none itself."""
        return id(tensor) not in self._leaves

    def order(self, tensor: Tensor) -> Tensor | None:
        """Which sample stands where, (B,), in a tensor that keeps them in another order."""
        token, _, order, _ = getattr(tensor, _MARK, _NONE)
        return order if token is self._token else None

    def _is_repeated(self, tensor: Tensor) -> bool:
        """Whether dimension 0 is a constant once for every sample, and nothing else is."""
        token, _, _, repeated = getattr(tensor, _MARK, _NONE)
        return repeated and token is self._token

    def _role(self, tensor: Tensor) -> Role | Sources:
        if (leaf := self._leaves.get(id(tensor))) is not None:
            return leaf
        token, role, _, _ = getattr(tensor, _MARK, _NONE)
        if token is self._token:
            return role
        # What has a graph and was not seen comes from an operation that no mode sees, as those of
        # torch.jit: it carries samples, or `verify` will miss parameters.
        unseen = tensor.grad_fn is not None
        if not unseen and (self._given or tensor.ndim == 0 or id(tensor) in self._constants):
            return Role.CONSTANT
        self._samples = self._samples or (tensor.shape[0] if tensor.ndim else None)
        self._mark(tensor, Role.SAMPLES)
        return Role.SAMPLES

    def _mark(
        self,
        tensor: Tensor,
        role: Role | Sources,
        order: Tensor | None = None,
        repeated: bool = False,
    ) -> None:
        if id(tensor) not in self._leaves:
            derived = isinstance(role, frozenset) and tensor.requires_grad
            kept = derived or role is Role.SAMPLES
            role = role if kept else Role.CONSTANT
            setattr(tensor, _MARK, (self._token, role, order, repeated))

    def _hinder(self, reason: str) -> None:
        self.obstacle = self.obstacle or reason

    def run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Decomposed.run`."""
        if self._inside:
            return func(*args, **kwargs)
        self._calls += 1
        _refuse(self._model, func, args, kwargs)
        inputs = flat((*args, *kwargs.values())) if kwargs else flat(args)
        roles = [self._role(t) for t in inputs]
        if (generator := kwargs.get("generator")) is not None:
            self.generators.setdefault(generator, generator.get_state())
        met = Role.SAMPLES in roles
        derived = [r for r in roles if isinstance(r, frozenset)]
        written = writes(func, args)
        kinked = func in KINKED and inputs and inputs[0].is_floating_point()
        version = inputs[0]._version if kinked else 0
        self.cuts.before(func, args)
        copies = met and (func in REPETITIONS or func in INDEXING) and self._is_repeated(inputs[0])
        if copies and func not in REPETITIONS:
            # One row of a constant that was repeated for every sample is the constant.
            met, copies = not takes_one_row(func, args), False

        if met and derived:
            result = self._meet(func, args, kwargs, inputs, roles)
        else:
            result = func(*args, **kwargs)
            if self._fills(func, result):
                met = True
            elif self._expands(func, inputs, result):
                met = True
                if derived:
                    result = self._used(func, args, kwargs, result)
                copies = not derived and self._grows_first(inputs[0], result)
        if met and kinked and isinstance(result, Tensor):
            # A bound that moves moves the kink.
            still = not any(t.requires_grad for t in inputs[1:])
            if not still:
                self._hinder(MOVING)
            if inside_checkpoint():
                self._hinder(CHECKPOINT)
            first = kept(func, inputs[0], result)
            self.kinks[self._calls] = first, first._version if func in RELU else version

        if met:
            self.cuts.see(self._calls, func, args, inputs, result)
            if self.cuts.transformed:
                self._hinder(TRANSFORMED)
        bent = func in BENT and self._calls not in self.cuts
        if met and bent and any(t.requires_grad for t in inputs):
            self._hinder(MOVING)
        # Hooks of torch itself, as of its counters, leave gradients as they are.
        if func in HOOKS and not getattr(args[1], "__module__", "").startswith("torch."):
            self._hinder(HOOKED)

        role = Role.SAMPLES if met else Role.CONSTANT
        if derived and not met:
            role = frozenset().union(*derived)
            if any(t.requires_grad for t in flat((result,))):
                self.derived.add(self._calls)
        order = None
        if met and func in INDEXING:
            order = self._reordered(func, args, kwargs, inputs)
        elif met and self._permuted:
            order = next((o for t in inputs if (o := self.order(t)) is not None), None)
        for output in flat((result,)):
            self._mark(output, role, order, copies)
            if output.requires_grad:
                self.dtypes.add(output.dtype)
        if written and role is not Role.CONSTANT:
            if derived:
                self._hinder(WRITTEN)
            self._mark(args[0] if result is None else inputs[0], role, order)
            if inputs[0]._base is not None:
                self._mark(inputs[0]._base, role, order)
        return result

    def _meet(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        inputs: list[Tensor],
        roles: list[Role | Sources],
    ) -> Any:
        """Run an operation in which parameters meet samples, and record it."""
        if func is torch.Tensor.__setitem__:
            # The parameter as a sum with the zeros that it replaces, which is a use like any other.
            value = torch.zeros_like(args[0][args[1]])
            self._mark(value, Role.SAMPLES)
            value = self.seen(torch.Tensor.add, (value, args[2]), {})
            return func(args[0], args[1], value)
        if (functional := out_of_place(func, args)) is not None:
            # The same through a value of its own, so that input and output stay apart.
            args = (args[0].clone(), *args[1:])
            self._mark(args[0], roles[0])
            result = functional(*args, **kwargs)
            self._record(functional, args, kwargs, result)
            return inputs[0].copy_(result)
        return self._used(func, args, kwargs, func(*args, **kwargs))

    def _used(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> Any:
        if isinstance(result, Tensor) and result._is_view():
            # Writing into a view later would rebase its node, and with it the edge.
            result = result.clone()
        self._record(func, args, kwargs, result)
        return result

    def _expands(self, func: Any, inputs: list[Tensor], result: Any) -> bool:
        """A parameter or constant repeated for every sample (class tokens, segment ids).

        Told by the size alone: one repeated as often for another reason is refused by its layout.
        """
        samples = self._samples or 0
        if func is repeated:
            return True
        if func not in EXPANSIONS or samples < 2:
            return False
        before = (1,) * (result.ndim - inputs[0].ndim) + tuple(inputs[0].shape)
        pairs = list(zip(before, result.shape, strict=True))
        # k rows become B·k where samples are folded with heads.
        grown = any(a == b * samples for b, a in pairs)
        return grown and all(a == b * samples or b in (1, a) for b, a in pairs)

    def _grows_first(self, before: Tensor, after: Tensor) -> bool:
        """Whether dimension 0 was made of one row, and no other dimension changed."""
        rest = after.shape[1:]
        return after.shape[0] == self._samples and before.shape in (rest, (1, *rest))

    def _reordered(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[Tensor]
    ) -> Tensor | None:
        """The order of the samples where they are indexed by a permutation, or none."""
        before, index = self.order(inputs[0]), index_of(func, args, kwargs)
        count = self._samples or 0
        if count < 2 or index is None or index.shape != (count,) or index.dtype.is_floating_point:
            return before
        straight = torch.arange(count, device=index.device)
        if index.dtype is torch.bool or not torch.equal(index.sort().values, straight):
            return before
        order = (index if before is None else before[index]).detach()
        if torch.equal(order, straight):
            return None
        self._permuted = True
        return order

    def _fills(self, func: Any, result: Any) -> bool:
        """A constant or noise made for every sample (initial states): it carries samples."""
        return func in _FILLS and (self._samples or 0) > 1 and result.shape[:1] == (self._samples,)

    def _record(
        self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        tensors = flat((*args, *kwargs.values()))
        if isinstance(operation, type):
            tensors += list(args[0].parameters())
        parameters = {id(t): t for t in tensors if self.sources(t) and t.requires_grad}
        outputs = {k: t for k, t in enumerate(flat((result,))) if t.requires_grad}
        if kwargs.get("out") is not None:
            raise NotImplementedError(
                f"{resolve_name(operation)} writes a parameter into a tensor that carries samples, "
                f"which cannot be followed: build that tensor with torch.cat, torch.where or a "
                f"sum, or use estimator=Sign()"
            )
        if not outputs or not parameters:
            return
        if inside_checkpoint():
            self._hinder(CHECKPOINT)
        orders = [o for t in tensors if self._permuted and (o := self.order(t)) is not None]
        self.uses.append(
            Use(
                operation=operation,
                rule=RULES.get(operation),
                args=args,
                kwargs=kwargs,
                sampled=frozenset(id(t) for t in tensors if self._role(t) is Role.SAMPLES),
                parameters=list(parameters.values()),
                outputs=list(outputs),
                edges=[get_gradient_edge(t) for t in outputs.values()],
                shapes=[t.shape for t in outputs.values()],
                strides=[t.stride() for t in outputs.values()],
                versions=[(t, t._version) for t in tensors],
                call=self._calls,
                order=orders[0] if orders else None,
            )
        )

    def _enter_module(self, module: nn.Module, args: Any) -> None:
        self._inside += 1

    def _leave_module(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        self._inside -= 1
        if not self._inside:
            for output in flat((result,)):
                self._mark(output, Role.SAMPLES)
            self._hinder(MODULE_RULE)
            self._record(type(module), (module, *args), kwargs, result)


def _refuse(
    model: nn.Module | None, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    if func is F.batch_norm and (kwargs.get("training") or (len(args) > 5 and args[5])):
        refuse_mixing(model, "the per-sample trace")
    if func is F.embedding and (kwargs.get("sparse") or kwargs.get("scale_grad_by_freq")):
        raise ValueError(
            "an Embedding with sparse=True or scale_grad_by_freq=True has no per-sample gradient "
            "here: construct it with both False"
        )
