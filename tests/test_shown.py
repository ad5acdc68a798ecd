"""Every part shows itself as the call that makes an equal one."""

from dataclasses import dataclass
from math import inf

import pytest

import f3eo
from f3eo import (
    ByFit,
    ByMisfit,
    ByRow,
    Cap,
    Compiled,
    Coupled,
    Decoupled,
    DoubleBackward,
    Elementwise,
    Euclidean,
    Factored,
    FiniteDifference,
    Fitted,
    Fixed,
    LossScale,
    MiniBatch,
    ModelSampled,
    PerSample,
    Ratio,
    Sensitivity,
    Sign,
    Uniform,
    Warmup,
    continual,
    control,
    extend,
)
from f3eo.bench.continual.learners.batch_squared import BatchSquared
from f3eo.continual import (
    Balanced,
    Elastic,
    Exact,
    FromSteps,
    PathIntegral,
    Rehearsal,
    Reservoir,
    Ring,
    RunningMean,
)
from f3eo.control import PI, Complexity, FreeEnergy, Share, TraceTarget
from f3eo.extend import DecoupledPerTensor, Direct, Rule
from f3eo.instruments import free_energy
from f3eo.instruments.free_energy import (
    GaussianPrior,
    IsotropicNoise,
    Laplace,
    LogUniformPrior,
    MultiplicativeNoise,
    RelativePrior,
)
from f3eo.integrations.fsdp import Sharded
from f3eo.shown import Shown


@dataclass(frozen=True)
class Second:
    """A key whose `repr` can be typed, as that of a function cannot."""

    def __call__(self, x, y):
        return y


PARTS = {
    "PerSample()": PerSample(FiniteDifference(), power=1),
    "PerSample(DoubleBackward(), power=2)": PerSample(DoubleBackward(), power=2, memory=2**28),
    "PerSample(metric=ByRow(), hold_residuals=True)": PerSample(
        metric=ByRow(), hold_residuals=True
    ),
    "PerSample(FiniteDifference(central=True), memory=1000)": PerSample(
        FiniteDifference(central=True), memory=1000
    ),
    "Compiled(PerSample())": Compiled(),
    "Compiled(PerSample(power=2), backend=None)": Compiled(PerSample(power=2), backend=None),
    "Sharded()": Sharded(),
    "Sharded(PerSample(power=2))": Sharded(PerSample(power=2)),
    "Sign()": Sign(DoubleBackward()),
    "LossScale()": LossScale(2.0**15),
    "LossScale(1024.0, interval=5)": LossScale(1024, interval=5),
    "Sign(FiniteDifference(), balanced=True)": Sign(FiniteDifference(), balanced=True),
    "ModelSampled()": ModelSampled(PerSample(power=2)),
    "ModelSampled(Sign(), probes=3)": ModelSampled(Sign(), probes=3),
    "ModelSampled(probes=None)": ModelSampled(probes=None),
    "MiniBatch()": MiniBatch(),
    "MiniBatch(FiniteDifference(step=0.5))": MiniBatch(FiniteDifference(step=0.5)),
    "DoubleBackward()": DoubleBackward(),
    "FiniteDifference(central=True, step=0.1)": FiniteDifference(central=True, step=0.1),
    "Euclidean()": Euclidean(),
    "ByRow()": ByRow(vectors=None),
    "Factored(vectors=0.0)": Factored(vectors=0.0),
    "Elementwise(vectors=2)": Elementwise(vectors=2),
    "Uniform()": Uniform(),
    "ByFit()": ByFit(),
    "ByMisfit()": ByMisfit(),
    "Sensitivity()": Sensitivity(),
    "Sensitivity(2.0, threshold=0.5)": Sensitivity(2.0, threshold=0.5),
    "Decoupled()": Decoupled(),
    "DecoupledPerTensor()": DecoupledPerTensor(),
    "Coupled()": Coupled(),
    "Direct()": Direct(),
    "Fitted(0.04)": Fitted(0.04),
    "Fitted(0.04, schedule=Warmup(500))": Fitted(0.04, schedule=Warmup(500)),
    "Cap(0.1, limit=2.0)": Cap(0.1, 2.0),
    "Cap(0.1, limit=0.5, schedule=Warmup(5, delay=2))": Cap(0.1, 0.5, Warmup(5, 2)),
    "Ratio(0.3)": Ratio(0.3),
    "Fixed(2.0, schedule=Warmup(1))": Fixed(2.0, Warmup(1)),
    "Laplace()": Laplace(),
    "Laplace('kronecker', of='fisher')": Laplace("kronecker", of="fisher"),
    "IsotropicNoise(0.1)": IsotropicNoise(0.1),
    "MultiplicativeNoise(metric=ByRow())": MultiplicativeNoise(metric=ByRow()),
    "GaussianPrior(2.0)": GaussianPrior(2.0),
    "LogUniformPrior()": LogUniformPrior(),
    "RelativePrior(0.5)": RelativePrior(0.5),
    "TraceTarget(0.5)": TraceTarget(0.5, memory=20),
    "TraceTarget(Share(0.5), controller=PI(2.0))": TraceTarget(Share(0.5), controller=PI(2.0)),
    "TraceTarget(2, start=0.2, bounds=(0.1, 9.0), memory=5, limit=2.0)": TraceTarget(
        2, start=0.2, bounds=(0.1, 9.0), memory=5, limit=2.0
    ),
    "Share(0.5, after=9)": Share(0.5, 9),
    "Complexity(80.0, samples=600)": Complexity(80.0, 600),
    "TraceTarget(Complexity(80.0, samples=600, variance=2.0))": TraceTarget(
        Complexity(80.0, 600, 2.0)
    ),
    "PI(integral=0.1)": PI(1.0, 0.1),
    "FreeEnergy(600)": FreeEnergy(600, variance=1),
    "FreeEnergy(600, variance=inf)": FreeEnergy(600, variance=inf),
    "Reservoir(500)": Reservoir(500),
    "Ring(50, device='cpu')": Ring(50, device="cpu"),
    "Balanced(500, key=Second())": Balanced(500, Second()),
    "Rehearsal(Reservoir(500))": Rehearsal(Reservoir(500), 10),
    "Rehearsal(Ring(50), samples=5, loss=0, structure=2.0, decouple=False)": Rehearsal(
        Ring(50), 5, loss=0, structure=2.0, decouple=False
    ),
    "RunningMean()": RunningMean(),
    "RunningMean(0.5)": RunningMean(0.5),
    "Elastic(Exact(), strength=100.0)": Elastic(Exact("data"), 100.0),
    "Elastic(Exact('exact'), strength=1, decay=0.5)": Elastic(Exact("exact"), 1, 0.5),
    "Exact('drawn')": Exact("drawn"),
    "FromSteps()": FromSteps(),
    "PathIntegral()": PathIntegral(0.1),
    "PathIntegral(1.0)": PathIntegral(1.0),
    "BatchSquared()": BatchSquared(),
    "Warmup(10)": Warmup(10, 0),
    "Warmup(10, delay=5)": Warmup(10, 5),
}


def settings(part):
    """All that a part was made with, parts in it as theirs."""
    if isinstance(part, Shown):
        own = {k: v for k, v in vars(part).items() if not k.startswith("_")}
        return type(part), {k: settings(v) for k, v in own.items()}
    return part


@pytest.mark.parametrize("text", PARTS)
def test_what_is_shown_can_be_typed(text):
    assert repr(PARTS[text]) == text
    rooms = {**vars(f3eo), **vars(extend), **vars(control), **vars(free_energy), **vars(continual)}
    others = {"Sharded": Sharded, "inf": inf, "Second": Second, "BatchSquared": BatchSquared}
    made = eval(text, {**rooms, **others})
    assert settings(made) == settings(PARTS[text])


def test_no_part_is_missing_here():
    def below(kind):
        return {kind}.union(*map(below, kind.__subclasses__()))

    known = {k for k in below(Shown) if k.__module__.startswith("f3eo.") and k is not Shown}
    abstract = {k for k in known if getattr(k, "__abstractmethods__", None)}
    assert known - abstract == {type(part) for part in PARTS.values()}


def test_a_part_of_ones_own_is_shown_too():
    class Own(Rule):
        def __init__(self, size: float, *more: int, sharp: bool = False, **others: int) -> None:
            self.size, self.sharp = size, sharp

        def shares(self, products):
            return [self.size] * len(products)

    class Forgetful(Own):
        def __init__(self, hidden: int = 3) -> None:
            super().__init__(hidden)

    assert repr(Own(2.5)) == "Own(2.5)" and repr(Own(1, sharp=True)) == "Own(1, sharp=True)"
    assert repr(Forgetful()) == "Forgetful(…)"
