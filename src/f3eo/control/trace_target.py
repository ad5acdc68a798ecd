"""λ as the multiplier of a bound on the Fisher trace."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import exp, inf, isfinite, isnan, log, nan
from sys import float_info

from f3eo.control.pi import PI
from f3eo.control.running_mean import running_mean
from f3eo.control.target import Share, Target, checked, value_at
from f3eo.strength import Cap, Observation
from f3eo.strength.strength import number


@dataclass(frozen=True)
class Course:
    """How far a controller is.

    Args:
        measured: measured steps so far.
        trace: running mean of the measured traces; 0 before the first.
        own: T of a `Share`; nan where it is not known or not needed.
        target: τ at the last measured step; nan before it is known.
        integral: K_I Σ e.
        strength: λ.
        limited: whether limit·‖g‖/‖d‖ has bound the last structure term.
    """

    measured: int = 0
    trace: float = 0.0
    own: float = nan
    target: float = nan
    integral: float = 0.0
    strength: float = 0.0
    limited: bool = False

    @property
    def error(self) -> float:
        """log(trace/τ), finite at a trace of 0; nan before τ is known."""
        return log(max(self.trace, float_info.min)) - log(self.target)


class TraceTarget(Cap):
    """Holds the trace at or below τ: λ is the multiplier of min L subject to Tr(D F D) ≤ τ.

    After a measured step with the error e_t = log(m_t/τ_t), m_t a running mean of the trace,

        log λ_t = clip(log λ_0 + K_P e_t + K_I Σ_{s ≤ t} e_s, log λ_min, log λ_max),

    and the structure term is at most limit·‖g‖ long. The integral does not grow while λ is at a
    bound or the limit binds. Where the base stays below τ by itself, λ falls to λ_min. On steps
    that measure no trace nothing changes. A target that the limit keeps out of reach is missed;
    `course` says so: `course.limited`, `course.error`.

    The trace is `F3EO.trace`, in the metric of the estimator, and λ a distance as with `Cap`. It
    has a state: give every optimizer one of its own. It is saved with the optimizer.

    Args:
        target: τ > 0, a function step -> τ, a `Share` of the trace that the base has by itself, or
            a `Complexity` of the free energy.
        start: λ_0, within the bounds; default 0.1.
        bounds: λ_min and λ_max, above 0; default 0.01 and 100.
        controller: K_P and K_I; default `PI()`.
        memory: time constant of m, in measured steps, at least 1; default 20.
        limit: see `Cap`; default 3. It must be above 1 to reach τ: at the constrained optimum of
            the coupled rule, g + λ h = 0, the term is just as long as the gradient, and batches
            scatter around that.

    Attributes:
        course: λ, m, τ and the rest of the state, a `Course`.

    Raises:
        TypeError, ValueError: a target that is no number above 0; bounds that are not in order, a
            start outside of them; a memory below 1; see `Cap`.

    Source: νPI, Sohrabi et al. 2024 (2406.04558), algorithm 1; `PI` lists the departures.
    """

    def __init__(
        self,
        target: Target,
        *,
        start: float = 0.1,
        bounds: tuple[float, float] = (0.01, 100.0),
        controller: PI | None = None,
        memory: float = 20.0,
        limit: float = 3.0,
    ) -> None:
        super().__init__(start, limit)
        low, high = bounds
        if not 0 < low < high < inf:
            raise ValueError(f"TraceTarget needs finite bounds 0 < low < high, received {bounds}")
        if not low <= start <= high:
            raise ValueError(
                f"TraceTarget needs a start within its bounds {bounds}, received {start}"
            )
        if controller is not None and not isinstance(controller, PI):
            raise TypeError(f"TraceTarget needs PI() as its controller, received {controller!r}")
        if not 1 <= number(self, "memory", memory) < inf:
            raise ValueError(f"TraceTarget needs a finite memory >= 1, received {memory}")
        self.target = checked(target)
        self.start = start
        self.bounds = (low, high)
        self.controller = controller if controller is not None else PI()
        self.memory = memory
        self.load({})

    def at(self, observed: Observation) -> float:
        """λ in the scale of a mean norm, after what this step measured."""
        if observed.measured and observed.trace is not None:
            trace = float(observed.trace)
            if isfinite(trace):
                self.course = self._after(trace, observed)
        return self.course.strength * observed.norm_scale()

    def multiplier(self, constant: float, gradient: float, direction: float) -> float:
        """See `Cap.multiplier`; notes whether the limit binds."""
        strength = super().multiplier(constant, gradient, direction)
        self.course = replace(self.course, limited=strength < constant and direction > 0)
        return strength

    def counters(self) -> Mapping[str, float]:
        """See `Strength.counters`: the fields of `Course`."""
        return asdict(self.course)

    def load(self, counters: Mapping[str, float]) -> None:
        """See `Strength.load`."""
        names = {field.name for field in fields(Course)} & counters.keys()
        waits = isinstance(self.target, Share)
        self.course = replace(
            Course(strength=0.0 if waits else self.start), **{n: counters[n] for n in names}
        )

    def _after(self, trace: float, observed: Observation) -> Course:
        """The course after one measured trace."""
        before, target = self.course, self.target
        count = before.measured + 1
        mean = running_mean(before.trace, count, trace, self.memory)
        own = before.own
        if isinstance(target, Share) and count == target.after:
            own = mean
        now = value_at(target, observed.step, own, observed.parameters)
        course = replace(before, measured=count, trace=mean, own=own, target=now, limited=False)
        if isnan(now):  # the share is not known yet
            return course
        output = self.controller(
            course.error,
            before.integral,
            start=log(self.start),
            bounds=(log(self.bounds[0]), log(self.bounds[1])),
            limited=before.limited,
        )
        return replace(course, integral=output.integral, strength=exp(output.value))
