"""One checked evaluation of the user's closure, and the world around it that can be put back."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from f3eo import batch as batches
from f3eo.as_written import as_written
from f3eo.decompositions import Decomposed
from f3eo.likelihood import Likelihood
from f3eo.randomness import RandomStates
from f3eo.weighted import Shares, Weighted

Closure = Callable[..., Any]
R = TypeVar("R")
S = TypeVar("S")


@dataclass(frozen=True)
class Problem:
    """What one step differentiates.

    Args:
        closure: the user's function; called with `batch`.
        batch: its arguments, samples in dimension 0; empty if the closure takes none.
        parameters: every tensor the optimizer trains.
        structured: for each parameter, whether it belongs to the structure term.
        model: the module behind the closure, if known: for buffers, names and refusals.
        generator: source of the random signs, labels and parts; None is torch's global one.
        repeatable: the closure is known to draw nothing and to write into no buffer.
        names: of the parameters, for messages where the model is not known.
        watch: is shown what the closure gave, with its graph.
    """

    closure: Closure
    batch: tuple[Any, ...]
    parameters: list[Tensor]
    structured: list[bool] = field(default_factory=list)
    model: nn.Module | None = None
    generator: torch.Generator | None = None
    repeatable: bool = False
    names: Sequence[str] | None = None
    watch: "Callable[[Output], None] | None" = None

    def part(self, index: Tensor) -> "Problem":
        """The same problem on the samples at `index`."""
        return replace(self, batch=batches.selected(self.batch, index))

    def name(self, parameter: Tensor) -> str:
        """The parameter's name in the model, or its place and shape."""
        for name, p in self.model.named_parameters() if self.model is not None else ():
            if p is parameter:
                return name
        place = next((i for i, p in enumerate(self.parameters) if p is parameter), None)
        if self.names is not None and place is not None:
            return self.names[place]
        return f"parameter {place} of shape {tuple(parameter.shape)}"


@dataclass(frozen=True)
class Output:
    """What a closure gave.

    Args:
        losses: ℓ_i, (B,).
        likelihood: that they came from, if so.
        shares: what each of them counts in the mean.
    """

    losses: Tensor
    likelihood: Likelihood | None
    shares: Shares

    def mean(self) -> Tensor:
        """L, a scalar."""
        return self.shares.mean(self.losses)


def evaluate(
    problem: Problem,
    *,
    per_sample: bool,
    twice: bool,
    attached: bool = True,
    mode: Decomposed | None = None,
) -> Output:
    """Run the closure once and check what it returns.

    Args:
        problem: closure, batch and parameters.
        per_sample: refuse a scalar loss; otherwise it counts as one sample.
        twice: run the forward so that it can be differentiated twice: fused attention and
            recurrent kernels cannot (pytorch#116350, pytorch#5261).
        attached: with gradients enabled; without, nothing can be differentiated.
        mode: around the closure alone; it sees composite operations as their parts.

    Returns:
        Losses of shape (B,), and what they count.

    Raises:
        TypeError: neither a tensor nor a likelihood.
        ValueError: a scalar, a wrong number of samples, losses no parameter has a part in, weights
            that are negative or not finite.
        RuntimeError: the closure called `backward`.
    """
    with (
        torch.set_grad_enabled(attached),
        _untouched_grads(problem.parameters),
        ExitStack() as stack,
    ):
        if twice or mode is not None:
            stack.enter_context(as_written(twice=twice))
        with mode or (Decomposed(twice=True) if twice else nullcontext()):
            result = problem.closure(*problem.batch)
            likelihood = result if isinstance(result, Likelihood) else None
            weights = None
            if likelihood is not None:
                losses, weights = likelihood.losses(), likelihood.weights()
            elif isinstance(result, Weighted):
                losses, weights = result.per_sample()
            else:
                losses = result
        if any(p.grad is not None for p in problem.parameters):
            raise RuntimeError(
                "the closure called backward(): F3EO differentiates by itself; return the "
                "per-sample losses and remove backward() and zero_grad() from the closure; where a "
                "framework calls them, take over its loop (Lightning: automatic_optimization=False)"
            )
    losses = _checked(losses, problem, per_sample, attached)
    if isinstance(result, Weighted) and not problem.repeatable:  # a recording has no values yet
        result.check()
    output = Output(losses, likelihood, Shares(len(losses), weights))
    if problem.watch is not None and attached and not problem.repeatable:
        problem.watch(output)
    return output


def _checked(losses: Any, problem: Problem, per_sample: bool, attached: bool) -> Tensor:
    if not isinstance(losses, Tensor):
        hollow = (
            "; behind a wrapper's step() of no closure, accumulate(closure, *batch) comes first"
        )
        raise TypeError(
            f"the closure returns per-sample losses (a tensor), Weighted(losses, weights) or a "
            f"likelihood (Categorical, Gaussian), received {type(losses).__name__}"
            f"{hollow if losses is None else ''}"
        )
    if losses.ndim == 0:
        if per_sample:
            raise ValueError(
                "the closure returned a scalar loss, per-sample losses are needed: use "
                'reduction="none" so that dimension 0 counts the samples (or estimator=Batch())'
            )
        losses = losses.reshape(1)
    elif (count := batches.size(problem.batch)) is not None and losses.shape[0] != count:
        raise ValueError(
            f"the closure returned losses of shape {tuple(losses.shape)} for a batch of {count} "
            f"samples; dimension 0 must count the samples (for positions: (B, T), not (B·T,); a "
            f"list of mappings is one sample a mapping, and collated parts stand in a tuple)"
        )
    if not losses.is_floating_point():
        raise TypeError(f"losses must be real floating point, received {losses.dtype}")
    if attached and not losses.requires_grad:
        raise ValueError(
            "the losses depend on no parameter that requires a gradient; look for detach(), "
            "no_grad() or a model whose parameters are all frozen"
        )
    return losses if losses.ndim == 1 else losses.flatten(1).mean(1)


def check_reached(reached: Iterable[Any], parameters: Sequence[Tensor]) -> None:
    """Refuse losses that depend on none of the parameters, and sparse gradients.

    Args:
        reached: what was found per parameter or use; nothing or None alone is a refusal.
        parameters: that were looked for.

    Raises:
        ValueError: with the way out.
    """
    reached = list(reached)
    if any(isinstance(item, Tensor) and item.is_sparse for item in reached):
        raise ValueError(
            "an operation gives sparse gradients, which have no Hessian products here: use its "
            "dense form (an Embedding with sparse=False)"
        )
    if all(item is None for item in reached):
        raise ValueError(
            f"the losses depend on none of the {len(parameters)} parameters: does the closure run "
            f"the model that was handed over, on the batch that it is given?"
        )


@contextmanager
def _untouched_grads(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Set .grad aside, so that a backward() in the closure shows and does no harm."""
    grads = [p.grad for p in parameters]
    for p, g in zip(parameters, grads, strict=True):
        if g is not None:
            p.grad = None
    try:
        yield
    finally:
        for p, g in zip(parameters, grads, strict=True):
            if p.grad is not g:
                p.grad = g


def mixing(model: nn.Module | None) -> list[str]:
    """Names of modules whose forward mixes the samples of a batch (batch statistics)."""
    return [
        name or type(module).__name__
        for name, module in (model.named_modules() if model is not None else ())
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
    ]


def refuse_mixing(model: nn.Module | None, what: str) -> None:
    """Raise because batch statistics mix the samples, so per-sample gradients are not defined.

    Raises:
        ValueError: names the modules and the ways out.
    """
    names = mixing(model)
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "") or "a BatchNorm"
    raise ValueError(
        f"{what} needs samples that do not mix, but {shown} normalise(s) with batch statistics: "
        f"replace by GroupNorm or LayerNorm, freeze running statistics with .eval() on these "
        f"modules (again after every model.train()), or use estimator=Batch()"
    )


class World:
    """Everything a closure may change besides its result: buffers, random states, .grad.

    Args:
        problem: whose model, parameters and generator are looked after.
        random: the random states of now, if they have been read; default those of torch and Python.
    """

    def __init__(self, problem: Problem, random: RandomStates | None = None) -> None:
        # By place, since a forward pass may put a new tensor there instead of writing into the old.
        self._buffers = [
            (module, name, b, None if b is None else b.detach().clone())
            for module in (problem.model.modules() if problem.model is not None else ())
            for name, b in module._buffers.items()
        ]
        self._grads = [(p, p.grad) for p in problem.parameters]
        self._generator = problem.generator
        self._drawn = problem.generator.get_state() if problem.generator is not None else None
        self._random = random or RandomStates(_devices(problem))

    def covers(self, parameters: Sequence[Tensor]) -> bool:
        """Whether these are the problem's parameters, in order."""
        return [id(p) for p, _ in self._grads] == [id(p) for p in parameters]

    def drawn(self) -> bool:
        """Whether random numbers have been drawn from torch's generators since."""
        return self._random.drawn()

    def lend_buffers(self, first: "World | None" = None) -> None:
        """Let a forward pass write into copies.

        Args:
            first: whose values they have; default those of now.

        `restore` then writes into no tensor that the graph of that pass has kept: a BatchNorm in
        training keeps its running statistics.
        """
        copies: dict[int, Tensor] = {}
        for module, name, buffer, value in (first or self)._buffers:
            if buffer is None or value is None:
                module._buffers[name] = None
            else:
                module._buffers[name] = copies.setdefault(id(buffer), value.clone())

    def restore_buffers(self) -> None:
        """Put every buffer back to its value at construction."""
        with torch.no_grad():
            for module, name, buffer, value in self._buffers:
                module._buffers[name] = buffer
                if buffer is not None and value is not None:
                    buffer.copy_(value)

    def restore(self) -> None:
        """Put everything back to its state at construction."""
        self.restore_buffers()
        for p, g in self._grads:
            p.grad = g
        if self._generator is not None and self._drawn is not None:
            self._generator.set_state(self._drawn)
        self._random.restore()


class Replay(Generic[R]):
    """A function of no arguments that can be run again as if it were the first time.

    The first call draws random numbers and updates buffers as usual. Every further one sees the
    random state and the buffers of the first (the same dropout masks, the same running means) and
    leaves no trace: random states and buffers are as before the call.

    Args:
        function: what to run.
        problem: whose buffers and devices are looked after.
        numpy: whether numpy's random state is, too; that takes a third of a millisecond.
    """

    def __init__(self, function: Callable[..., R], problem: Problem, *, numpy: bool = True) -> None:
        self._function = function
        self._problem = problem
        self._numpy = numpy
        self._first: RandomStates | None = None
        self._before: World | None = None
        self.generators: dict[torch.Generator, Tensor] = {}
        """Generators of the user's, and their states when the first call began."""

    def __call__(self, *args: Any) -> R:
        """The function's result."""
        if self._first is None:
            self._first = self._states()
            if not self._problem.repeatable:
                self._before = World(self._problem, self._first)
            return self._function(*args)
        return self.once_more(lambda: self._function(*args))

    def drawn(self) -> bool:
        """Whether torch's random numbers have been drawn since the first call began."""
        assert self._first is not None
        return self._first.drawn()

    def drawn_from_numpy(self) -> bool:
        """Whether numpy's have been; False where its state is not looked after."""
        assert self._first is not None
        return self._first.drawn_from_numpy()

    def drawn_outside(self) -> bool:
        """Whether Python's or numpy's have been."""
        assert self._first is not None
        return self._first.drawn_from_python() or self._first.drawn_from_numpy()

    def once_more(self, function: Callable[[], S]) -> S:
        """The result of another function, in the surroundings of the first call."""
        assert self._first is not None
        if self._problem.repeatable:
            return function()
        world = World(self._problem, self._states())
        world.lend_buffers(self._before)
        self._first.restore()
        for generator, state in self.generators.items():
            generator.set_state(state)
        try:
            return function()
        finally:
            world.restore()

    def _states(self) -> RandomStates:
        return RandomStates(_devices(self._problem), self.generators, numpy=self._numpy)


def _devices(problem: Problem) -> set[torch.device]:
    return {p.device for p in problem.parameters if p.device.type != "cpu"}
