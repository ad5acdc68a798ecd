"""Compiled gives what the estimator gives, and runs as it is what it cannot record."""

import copy
import pickle
import shutil
import warnings
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from f3eo import F3EO, Compiled, DoubleBackward, FiniteDifference, PerSample, Sign
from f3eo.closure.problem import Problem


def exact() -> PerSample:
    """Whose numbers a recording gives to rounding."""
    return PerSample(DoubleBackward(), power=2)


pytestmark = pytest.mark.filterwarnings("ignore:.*(deprecated|Deprecated).*")

BACKEND = None  # the recording is the same, and there is nothing to wait for
ENGINES = [DoubleBackward(), FiniteDifference()]


class Mixed(nn.Module):
    """Embedding, attention, norm, convolution, a bare parameter, a tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.convolution = nn.Conv1d(8, 8, 3, padding=1)
        self.scale = nn.Parameter(torch.full((8,), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.embedding(x)
        z = z + self.attention(self.norm(z), z, z, need_weights=False)[0]
        z = z + self.scale * F.relu(self.convolution(z.mT)).mT
        return z @ self.embedding.weight.T


def mixed() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor], object]:
    torch.manual_seed(0)
    model = Mixed().double()
    x = torch.randint(7, (5, 6))

    def closure(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x).mT, y, reduction="none")

    return model, (x, torch.randint(7, (5, 6))), closure


def perceptron(*between: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), *between, nn.Tanh(), nn.Linear(6, 3)).to(dtype)


def problem(model: nn.Module, closure, batch) -> Problem:
    parameters = list(model.parameters())
    return Problem(closure, batch, parameters, [True] * len(parameters), model)


def drawn(samples: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 4, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (samples,), generator=generator)


def loss_of(model: nn.Module, calls: Counter | None = None):
    def closure(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if calls is not None:
            calls["closure"] += 1
        return F.cross_entropy(model(x), y, reduction="none")

    return closure


def assert_same(found, truth, structure: float) -> None:
    torch.testing.assert_close(found.loss, truth.loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.trace, truth.trace, rtol=1e-11, atol=0)
    torch.testing.assert_close(found.gradient, truth.gradient, rtol=1e-10, atol=1e-13)
    scale = max(float(h.abs().max()) for h in truth.structure)
    torch.testing.assert_close(found.structure, truth.structure, rtol=0, atol=structure * scale)


@pytest.mark.parametrize("engine", ENGINES, ids=["twice", "differences"])
def test_the_recording_gives_what_the_estimator_gives_wherever_the_parameters_have_gone(engine):
    model, batch, closure = mixed()
    compiled, plain = (
        Compiled(PerSample(engine, power=2), backend=BACKEND),
        PerSample(engine, power=2),
    )
    tolerance = 1e-9 if isinstance(engine, DoubleBackward) else 1e-5
    for step in range(8):
        asked = problem(model, closure, batch)
        assert_same(compiled.gradients(asked), plain.gradients(asked), tolerance)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p), alpha=0.1)
        batch = (torch.randint(7, (5, 6)), torch.randint(7, (5, 6)))
        assert step < 1 or compiled._kinds


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor_gives_what_the_estimator_gives():
    model = perceptron()
    compiled, closure = Compiled(exact()), loss_of(model)
    for seed in range(7):
        asked = problem(model, closure, drawn(5, seed))
        assert_same(
            compiled.gradients(asked), PerSample(DoubleBackward(), power=2).gradients(asked), 1e-9
        )
    assert [recording.uses for recording in compiled._kinds.values()] == [6]
    assert all(recording.graph is not None for recording in compiled._kinds.values())


def test_the_closure_is_called_no_more_but_for_the_checks():
    model, calls = perceptron(), Counter()
    compiled = Compiled(exact(), backend=BACKEND)
    closure = loss_of(model, calls)
    counts = []
    for seed in range(10):
        compiled.gradients(problem(model, closure, drawn(5, seed)))
        counts.append(calls["closure"])
    # Met; recorded and checked; then checks at uses 2, 4 and 8.
    assert counts == [1, 3, 4, 4, 5, 5, 5, 5, 6, 6]


def test_every_shape_of_batch_has_a_recording_of_its_own():
    model = perceptron()
    compiled, closure = Compiled(exact(), backend=BACKEND), loss_of(model)
    for seed in range(4):
        for samples in (5, 2, 1):
            asked = problem(model, closure, drawn(samples, seed))
            assert_same(
                compiled.gradients(asked),
                PerSample(DoubleBackward(), power=2).gradients(asked),
                1e-9,
            )
    assert [recording.uses for recording in compiled._kinds.values()] == [3, 3, 3]


def test_training_with_it_is_training_without_it():
    ends = []
    for estimator in (PerSample(DoubleBackward(), power=2), Compiled(exact(), backend=BACKEND)):
        model = perceptron()
        closure = loss_of(model)
        optimizer = F3EO(
            model,
            torch.optim.SGD,
            lr=0.1,
            momentum=0.9,
            estimator=estimator,
            fraction=0.5,
            generator=torch.Generator().manual_seed(1),
            every=1,
        )
        for seed in range(12):
            optimizer.step(closure, *drawn(6, seed))
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES, ids=["twice", "differences"])
def test_dropout_draws_what_it_draws_otherwise(engine):
    ends = []
    for plain in (True, False):
        estimator = PerSample(engine, power=2)
        estimator = estimator if plain else Compiled(estimator, backend=BACKEND)
        model = perceptron(nn.Dropout(0.5))
        optimizer = F3EO(model, torch.optim.SGD, lr=0.1, estimator=estimator, fraction=1, every=1)
        closure = loss_of(model)
        torch.manual_seed(3)
        for seed in range(12):
            optimizer.step(closure, *drawn(6, seed))
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-10, atol=1e-12)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * (2 if x.sum() > 0 else 1)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3).double()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return self.linear(x)


@pytest.mark.parametrize(
    ("model", "engine", "says"),
    [
        (Branching(), DoubleBackward(), "control flow|value out of a tracing tensor"),
        (Counting(), DoubleBackward(), "writes into buffers"),
        (perceptron(nn.RReLU()), FiniteDifference(), "random numbers inside of one operation"),
    ],
    ids=["branch", "buffer", "random"],
)
def test_what_cannot_be_recorded_runs_as_it_is_with_one_warning(model, engine, says):
    other = copy.deepcopy(model)
    compiled, plain = (
        Compiled(PerSample(engine, power=2), backend=BACKEND),
        PerSample(engine, power=2),
    )
    closures = loss_of(model), loss_of(other)
    with pytest.warns(UserWarning, match=says) as told:
        for seed in range(6):
            torch.manual_seed(seed)
            found = compiled.gradients(problem(model, closures[0], drawn(5, seed)))
            torch.manual_seed(seed)
            truth = plain.gradients(problem(other, closures[1], drawn(5, seed)))
            assert_same(found, truth, 1e-12)
    assert sum("Compiled runs a step uncompiled" in str(w.message) for w in told) == 1
    for mine, its in zip(model.buffers(), other.buffers(), strict=True):
        assert torch.equal(mine, its)


def test_a_closure_made_anew_at_every_step_is_told_of_and_not_kept():
    model, compiled = perceptron(), Compiled(exact(), backend=BACKEND)
    with pytest.warns(UserWarning, match="another function at every step") as told:
        for seed in range(30):
            asked = problem(model, loss_of(model), drawn(5, seed))
            assert_same(
                compiled.gradients(asked),
                PerSample(DoubleBackward(), power=2).gradients(asked),
                1e-12,
            )
    assert len(told) == 1
    assert len(compiled._kinds) <= 8


def test_a_closure_without_a_batch_is_told_of():
    model, compiled = perceptron(), Compiled(exact(), backend=BACKEND)
    closure = loss_of(model)
    with pytest.warns(UserWarning, match="takes no batch"):
        for seed in range(3):
            batch = drawn(5, seed)
            asked = problem(model, lambda b=batch: closure(*b), ())
            assert_same(
                compiled.gradients(asked),
                PerSample(DoubleBackward(), power=2).gradients(asked),
                1e-12,
            )


def test_a_number_that_changes_in_the_closure_is_found_at_the_next_check():
    model, scale = perceptron(), [1.0]
    compiled = Compiled(exact(), backend=BACKEND)

    def closure(x, y):
        return scale[0] * F.cross_entropy(model(x), y, reduction="none")

    for seed in range(4):
        compiled.gradients(problem(model, closure, drawn(5, seed)))
    scale[0] = 3.0
    with pytest.warns(UserWarning, match="other numbers than at its recording"):
        for seed in range(4, 9):  # use 4 is the next check
            found = compiled.gradients(problem(model, closure, drawn(5, seed)))
    truth = PerSample(DoubleBackward(), power=2).gradients(problem(model, closure, drawn(5, 8)))
    assert_same(found, truth, 1e-12)


def test_training_and_evaluation_mode_are_recorded_apart():
    model = perceptron(nn.Dropout(0.5))
    compiled, closure = Compiled(exact(), backend=BACKEND), loss_of(model)
    for seed in range(3):
        compiled.gradients(problem(model, closure, drawn(5, seed)))
    model.eval()
    asked = problem(model, closure, drawn(5, 9))
    for _ in range(4):
        assert_same(
            compiled.gradients(asked), PerSample(DoubleBackward(), power=2).gradients(asked), 1e-9
        )


def test_one_tensor_twice_in_a_batch_is_not_taken_for_two():
    model = perceptron()

    def closure(x, z, y):
        return F.cross_entropy(model(x) - 0.5 * model(z), y, reduction="none")

    compiled = Compiled(exact(), backend=BACKEND)
    x, y = drawn(5)
    z, _ = drawn(5, 1)
    for batch in [(x, x, y)] * 3 + [(x, z, y)] * 3:
        asked = problem(model, closure, batch)
        assert_same(
            compiled.gradients(asked), PerSample(DoubleBackward(), power=2).gradients(asked), 1e-9
        )


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"]
)
def test_copies_record_for_themselves(clone):
    model = perceptron()
    compiled, closure = Compiled(exact(), backend=BACKEND), loss_of(model)
    for seed in range(3):
        compiled.gradients(problem(model, closure, drawn(5, seed)))
    copied = clone(compiled)
    assert not copied._kinds
    asked = problem(model, closure, drawn(5))
    assert_same(
        copied.gradients(asked), PerSample(DoubleBackward(), power=2).gradients(asked), 1e-12
    )


def test_a_backend_that_fails_is_told_of_and_left():
    def broken(graph, inputs):
        raise OSError("no compiler here")

    model = perceptron()
    compiled, closure = Compiled(exact(), backend=broken), loss_of(model)  # pyright: ignore
    with pytest.warns(UserWarning, match="uncompiled") as told:
        for seed in range(4):
            asked = problem(model, closure, drawn(5, seed))
            assert_same(
                compiled.gradients(asked),
                PerSample(DoubleBackward(), power=2).gradients(asked),
                1e-12,
            )
    assert sum("uncompiled" in str(w.message) for w in told) == 1


def test_other_estimators_are_refused():
    with pytest.raises(TypeError, match="needs a PerSample"):
        Compiled(Sign())  # pyright: ignore[reportArgumentType]


def test_no_warning_where_all_is_well():
    model = perceptron()
    compiled, closure = Compiled(exact(), backend=BACKEND), loss_of(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for seed in range(5):
            compiled.gradients(problem(model, closure, drawn(5, seed)))


def test_under_a_mode_that_watches_operations_it_runs_as_it_is():
    model = perceptron()
    compiled, closure = Compiled(exact(), backend=BACKEND), loss_of(model)
    counts = []
    for estimator in (compiled, PerSample(DoubleBackward(), power=2)):
        asked = problem(model, closure, drawn(5))
        estimator.gradients(asked)
        with FlopCounterMode(display=False) as counter:
            for _ in range(4):
                estimator.gradients(asked)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("engine", ENGINES, ids=["twice", "differences"])
def test_parts_of_a_batch_and_plain_gradients_are_recorded_too(engine):
    model, calls = perceptron(), Counter()
    closure = loss_of(model, calls)
    compiled, plain = (
        Compiled(PerSample(engine, power=2), backend=BACKEND),
        PerSample(engine, power=2),
    )
    counts = []
    for seed in range(6):
        order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
        asked = problem(model, closure, drawn(7, seed))
        truth = plain.gradients_on_part(asked, order[:3], order[3:])
        whole = plain.loss_gradient(asked)
        before = calls["closure"]
        assert_same(compiled.gradients_on_part(asked, order[:3], order[3:]), truth, 1e-5)
        found = compiled.loss_gradient(asked)
        counts.append(calls["closure"] - before)
        torch.testing.assert_close(found.gradient, whole.gradient, rtol=1e-10, atol=1e-13)
        assert found.structure is None and found.trace is None
    assert counts[3] == counts[5] == 0  # uses 3 and 5, between the checks
