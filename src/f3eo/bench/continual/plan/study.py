"""A study of streams: equal tuning, then fresh seeds at equal steps and at equal time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from f3eo.bench.continual.learners import PEERS
from f3eo.bench.continual.plan.tuning import SEED, draw
from f3eo.bench.continual.run.stream_run import EQUALS, Equal, StreamRun
from f3eo.bench.continual.streams import STREAMS
from f3eo.bench.plan.checks import check_counts, check_folder, check_names, check_positive

USUAL: Mapping[str, Any] = {
    "name": "streams",
    "streams": tuple(STREAMS),
    "learners": tuple(PEERS),
    "trials": 8,
    "seeds": 5,
    "stages": None,
    "samples": None,
    "tests": None,
    "equal": EQUALS,
}
QUICK: Mapping[str, Any] = {
    "name": "quick-stream",
    "streams": ("permuted-mnist",),
    "learners": ("sgd", "sam", "stable_sgd", "replay", "f3eo", "f3eo_memory"),
    "trials": 2,
    "seeds": 3,
    "stages": 5,
    "samples": 1000,
    "tests": None,
    "equal": ("steps",),
}
"""A small study: less than three minutes on two cores."""

Options = Mapping[tuple[str, str], Mapping[str, Any]]
"""All options, by stream and learner."""


@dataclass(frozen=True)
class StreamStudy:
    """The plan of a study of streams and the folder of its results; `USUAL` has the defaults.

    Args:
        name: name of the folder below `folder`; a second study of this name resumes the first.
        streams: names of streams.
        learners: names of learners.
        trials: number of settings tried per learner and stream, the default among them.
        seeds: number of results per learner, stream and kind of equality, with seeds 0, 1, …
        stages: number of stages of each stream, from the first on; None is all.
        samples: training samples of a stage; None is all.
        tests: samples of a stage that a run is judged on, drawn by the seed; None is all.
        equal: what learners spend equally: "steps", "time", or both in separate runs. The settings
            chosen by the trials, at equal steps, serve both.
        workers: number of processes, with one torch thread each; default 2.
        folder: parent of the study's folder; default "runs".
        minutes: no run starts after this time; default None, no limit.
        command: the command line, stored in every row; default empty.

    Raises:
        ValueError: an unknown name, or a number out of range.
    """

    name: str
    streams: Sequence[str]
    learners: Sequence[str]
    trials: int
    seeds: int
    stages: int | None
    samples: int | None
    tests: int | None
    equal: Sequence[Equal]
    workers: int = 2
    folder: Path = Path("runs")
    minutes: float | None = None
    command: str = ""

    def __post_init__(self) -> None:
        check_folder("study", self.name)
        check_names("stream", self.streams, STREAMS)
        check_names("learner", self.learners, PEERS)
        check_names("kind of equality", self.equal, dict.fromkeys(EQUALS))
        check_counts(
            trials=self.trials,
            seeds=self.seeds,
            stages=self.stages,
            samples=self.samples,
            tests=self.tests,
            workers=self.workers,
        )
        for stream in self.streams:
            there = _stages(stream)
            if self.stages is not None and self.stages > there:
                raise ValueError(
                    f"{stream} has {there} stages, received stages={self.stages}; ask for at most "
                    f"{there}"
                )
        check_positive(minutes=self.minutes)

    @property
    def path(self) -> Path:
        """The folder of the study."""
        return self.folder / self.name

    @property
    def defaults(self) -> Options:
        """The options of every learner on every stream before tuning."""
        return {(s, name): PEERS[name].options() for s in self.streams for name in self.learners}

    def stages_of(self, stream: str) -> int:
        """The number of stages that a learner is trained on."""
        return min(self.stages or _stages(stream), _stages(stream))

    def trial_runs(self) -> list[StreamRun]:
        """The runs of the tuning, trial by trial: on the first stages, with a seed of their own."""
        return [
            self._run(
                stream,
                learner,
                PEERS[learner].options(draw(stream, PEERS[learner], self.trials)[n]),
                seed=SEED,
                stages=min(STREAMS[stream].tuned_on, self.stages_of(stream)),
                kind="trial",
            )
            for n in range(self.trials)
            for stream in self.streams
            for learner in self.learners
        ]

    def result_runs(
        self, chosen: Options, prices: Mapping[tuple[str, str], float]
    ) -> list[StreamRun]:
        """The runs on test sets, ordered by seed: an early end leaves equal numbers of seeds.

        Args:
            chosen: the tuned options.
            prices: by stream and learner, time of a step in SGD steps; needed if
                `equal` names time.
        """
        return [
            self._run(
                stream,
                learner,
                chosen[stream, learner],
                seed=seed,
                stages=self.stages_of(stream),
                price=prices[stream, learner] if equal == "time" else None,
            )
            for seed in range(self.seeds)
            for stream in self.streams
            for equal in self.equal
            for learner in self.learners
        ]

    def _run(self, stream: str, learner: str, options: Mapping[str, Any], **more: Any) -> StreamRun:
        batch, epochs = STREAMS[stream].batch, STREAMS[stream].epochs
        return StreamRun(
            stream=stream,
            learner=learner,
            options=options,
            batch=batch,
            epochs=epochs,
            samples=self.samples,
            tests=self.tests,
            **more,
        )


@lru_cache
def _stages(stream: str) -> int:
    return len(STREAMS[stream].stages(0))
