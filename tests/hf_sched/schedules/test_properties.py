"""Properties of every schedule of the catalogue with any arguments. The rules are in hf_sched/schedules/schedule.py.

Hypothesis draws arguments by the readers that a schedule's signature names, so a new schedule is tested here at once.
"""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import hf_sched
from hf_sched import ArgumentError, Schedule
from hf_sched.schedules import registry
from hf_sched.schedules.phase_parser import PhasesReader
from hf_sched.schedules.shapes import DECAY_SHAPES, FORMS, ShapeReader
from hf_sched.schedules.validation import Amount, DurationReader, Number, Whole
from tests.helpers.catalog import CATALOGUE, EXCLUSIVE

pytestmark = pytest.mark.filterwarnings("ignore:cosine_(restarts|cyclic):UserWarning")
every_schedule = pytest.mark.parametrize("name", CATALOGUE)
slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
often = settings(max_examples=15, deadline=None, suppress_health_check=slow)

# Valid arguments may be wrong together. Any other error is a defect.
WRONG_TOGETHER = re.compile(
    "the wrong way: |is too large|`peak` must be a finite number"
    "|steps, but the run has|`num_warmup_steps` must be less than"
    "|`warmup` must be (shorter than the run|1 step or more)"
    "|`num_cycles` must leave each|`first_cycle` must be"
    "|`after_kwargs` .*`milestones` must be in ascending order"
    "|`half_period` must be 1 step or more"
    "|`cooldown` must be at most|`timescale` must be 1 step or more"
    "|'geometric' needs levels"
)


@dataclass(frozen=True)
class Run:
    """A schedule with its arguments, and the run that they have to fit into."""

    name: str
    steps: int
    warmup: int
    """The Trainer's warmup steps."""
    peak: float
    steps_per_epoch: float
    is_after: bool = False
    """Whether the schedule follows the warmup of another one."""
    kwargs: dict[str, Any] = field(default_factory=dict)

    def build(self, **changed: object) -> Schedule:
        return hf_sched.build(
            self.name,
            num_training_steps=self.steps,
            num_warmup_steps=self.warmup,
            steps_per_epoch=self.steps_per_epoch,
            **self.kwargs | changed,
        )

    def floor(self) -> float:
        """The floor that is given, or the schedule's default."""
        name, kwargs = self.name, self.kwargs
        if kwargs.get("after"):
            name, kwargs = kwargs["after"], {**kwargs.get("after_kwargs", {}), **kwargs}
        if "phases" in kwargs:
            kind, number = kwargs["phases"].partition("; ")[2].split()
            kwargs = {"min_lr" if kind == "min_lr" else "floor_ratio": float(number)}
        if "min_lr" in kwargs:
            return kwargs["min_lr"]
        default = 0.1 if name in ("cosine_floor", "minimind") else 0.0
        return kwargs.get("floor_ratio", default) * self.peak


@st.composite
def runs(draw: st.DrawFn, name: str) -> tuple[Run, Schedule]:
    """A run of a schedule, with arguments of all kinds."""
    steps = draw(st.integers(1, 90))
    warmup = draw(st.just(0) | st.integers(0, steps - 1))
    steps_per_epoch = draw(st.integers(1, 40) | st.floats(0.5, 40))
    run = Run(name, steps, warmup, draw(st.floats(1e-8, 10)), steps_per_epoch)
    kwargs = draw(arguments(run, name))
    has_own_warmup = "warmup" in kwargs or str(kwargs.get("phases")).startswith("warmup")
    run = replace(run, kwargs=kwargs, warmup=0 if has_own_warmup else warmup)
    try:
        schedule = run.build()
        schedule.floor(run.peak)
    except ArgumentError as error:
        assert WRONG_TOGETHER.search(str(error)), f"{run}: {error}"
        assume(False)
    return run, schedule


@st.composite
def arguments(draw: st.DrawFn, run: Run, name: str) -> dict[str, Any]:
    """Arguments of a schedule: those that are required, and any choice of the others."""
    entry = registry.entry(name)
    # The horizon has its own tests.
    names = [argument for argument in entry.arguments if argument not in ("after_kwargs", "horizon")]
    needed = [argument for argument, p in entry.parameters.items() if p.default is inspect.Parameter.empty]
    wanted = [argument for argument in names if argument in needed or draw(st.booleans())]
    if name == "exponential":
        wanted = ["gamma", "decay_rate", "floor_ratio"]
    if name == "phases":  # its text has the floor
        wanted = [argument for argument in wanted if argument not in ("floor_ratio", "min_lr")]
    if run.is_after:  # the outer schedule has the warmup
        wanted = [argument for argument in wanted if argument != "warmup"]
    for group in EXCLUSIVE:
        if both := [argument for argument in wanted if argument in group]:
            kept = draw(st.sampled_from(both))
            wanted = [argument for argument in wanted if argument not in group or argument == kept]
    if "after" in names:  # the floor is drawn for the schedule that follows
        wanted = [argument for argument in wanted if argument not in ("floor_ratio", "min_lr")]
    drawn = {argument: draw(values(run, name, argument)) for argument in wanted if argument != "after"}
    if "after" in wanted:
        drawn["after"] = draw(st.sampled_from([other for other in CATALOGUE if other not in AFTER]))
        drawn["after_kwargs"] = draw(arguments(replace(run, is_after=True), drawn["after"]))
    return drawn


AFTER = [name for name in CATALOGUE if "after" in registry.entry(name).arguments]


def values(run: Run, name: str, argument: str) -> st.SearchStrategy[Any]:
    """Values of an argument for its reader."""
    if argument == "min_lr":
        return st.floats(0, run.peak)
    if argument == "milestones":
        return milestones(run)
    reader: Any = registry.entry(name).reader(argument)
    match reader:
        case Number(low=low, high=high, above_low=shut_out):
            usual = st.floats(max(low, 0.001), min(high, low + 4))
            extreme = st.floats(max(low, 1e-290), min(high, 1e290))
            return usual | extreme if shut_out else st.just(low) | usual | extreme
        case Whole(low=low):
            return st.integers(low, low + run.steps // 3)
        case DurationReader():
            return durations(run, int(reader.above_zero))
        case ShapeReader():
            return st.sampled_from(reader.names).flatmap(shapes)
        case PhasesReader():
            return phases(run)
    raise AssertionError(f"add values for `{argument}` of {name} here")


def durations(run: Run, low: int) -> st.SearchStrategy[Any]:
    steps = st.integers(low, max(run.steps // 3, low)) | st.integers(low, run.steps)
    share = st.integers(low, 60).map(lambda n: n / 100) | st.floats(1e-9, 0.5)
    epochs = st.integers(low, 20).map(lambda n: Fraction(n, 8))
    return st.one_of(
        steps,
        steps.map(str),
        share,
        share.map(lambda share: f"{share * 100!r}%"),
        share.map(Fraction),
        epochs.map(lambda n: f"{float(n)}ep"),
        epochs.map(Amount),
    )


def milestones(run: Run) -> st.SearchStrategy[Any]:
    if run.warmup + 1 >= run.steps:
        return st.nothing()
    steps = st.sets(st.integers(run.warmup + 1, run.steps - 1), min_size=1, max_size=5).map(sorted)
    return steps | steps.map(lambda at: [f"{100 * n / run.steps!r}%" for n in at])


def shapes(name: str) -> st.SearchStrategy[str]:
    """A shape, and its number where it takes one."""
    form = FORMS[name]
    numbered = st.floats(0.01, 20).map(lambda number: f"{name} {number!r}")
    if form.number is None:
        return st.just(name)
    return numbered if form.default is None else numbered | st.just(name)


def phases(run: Run) -> st.SearchStrategy[str]:
    """Text in the phase language that fits any run."""
    texts = [
        "hold 20% at 0.5 | decay 30% rex to 0.2 | restart 20% geometric from 0.9 to 0.5 | decay every 3 to 0.25",
        "decay 30% {} to 0.3 | warmup 10% sqrt to 0.8 lars 0.01 | hold 15% | decay {} to 0.1 + 0.1 floor",
        "decay {} | hold 10% at 0.5 floor",
        "hold 50% at 1.5 | decay {} to floor",
    ]
    warmups = ["", "warmup 10% cosine from 0.1 to 0.9 | restart 10% | "]
    starts = st.sampled_from(warmups if not run.warmup and not run.is_after and run.steps > 9 else [""])
    shape = st.sampled_from([name for name in DECAY_SHAPES if name != "geometric"]).flatmap(shapes)
    floor = st.floats(0, 0.5).flatmap(lambda f: st.sampled_from([f"; floor {f!r}", f"; min_lr {f * run.peak!r}"]))
    return st.builds(
        lambda start, text, shape, end: f"{start}{text.replace('{}', shape)}{end}",
        starts,
        st.sampled_from(texts),
        shape,
        floor,
    )


@every_schedule
@often
@given(st.data())
def test_a_curve_is_positive_and_stays_at_its_last_level(name, data):
    run, schedule = data.draw(runs(name))
    curve, floor = schedule.curve(peak=run.peak), run.floor()
    assert schedule.floor(run.peak) == floor
    assert curve.shape == (run.steps,)
    assert curve.dtype == np.float64
    assert np.isfinite(curve).all()
    assert (curve >= 0).all()
    assert (curve[: run.warmup] > 0).all()
    if run.steps > 1 and name not in ("one_cycle", "multistep", "step", "exponential", "phases", *AFTER):
        assert curve[-1] == floor
        assert (run.peak + floor if name == "minimind" else run.peak) in curve
    for past in (0, 1, 1000, 10**9):
        assert schedule.lr(run.steps + past, peak=run.peak) == curve[-1]


def windows(steps: int) -> st.SearchStrategy[tuple[int, int]]:
    """A range of steps, possibly after the end of the run."""
    two = st.lists(st.integers(0, steps + 10), min_size=2, max_size=2, unique=True)
    return two.map(lambda ends: (min(ends), max(ends)))


@every_schedule
@often
@given(st.data())
def test_lr_curve_and_rates_agree_bit_for_bit(name, data):
    run, schedule = data.draw(runs(name))
    curve = schedule.curve(peak=run.peak)
    assert [schedule.lr(step, peak=run.peak) for step in reversed(range(run.steps))] == curve[::-1].tolist()
    peaks = [run.peak]
    if schedule.min_lr is None:  # an absolute floor may be above another peak
        peaks += data.draw(st.lists(st.floats(1e-8, 10), max_size=2))
    floors = [schedule.floor(peak) for peak in peaks]
    first, stop = data.draw(windows(run.steps))
    rates = schedule.rates(first, stop, np.array(peaks), np.array(floors))
    assert rates.tolist() == [[schedule.lr(step, peak=peak) for step in range(first, stop)] for peak in peaks]


@every_schedule
@often
@given(st.data())
def test_segments_fill_the_run_and_each_is_monotonic_between_its_levels(name, data):
    run, schedule = data.draw(runs(name))
    segments, curve, floor = schedule.segments, schedule.curve(peak=run.peak), schedule.floor(run.peak)
    assert segments[0].first == 0
    assert all(after.first == before.first + before.steps for before, after in pairwise(segments))
    assert sum(segment.steps for segment in segments) == run.steps
    assert all(segment.steps >= 1 for segment in segments)
    assert all(after.start == before.end or after.kind in ("restart", "hold") for before, after in pairwise(segments))
    for segment in segments:
        start, end = segment.start.at(run.peak, floor), segment.end.at(run.peak, floor)
        piece = curve[segment.first :][: segment.steps]
        assert piece[-1] == (start if segment.jump and segment.steps == 1 else end)
        assert piece[0] == start or not segment.jump
        assert min(start, end) <= piece.min() <= piece.max() <= max(start, end)
        slack = 1e-15 * max(start, end)
        assert (np.diff(piece) * (1 if segment.kind == "warmup" else -1) >= -slack).all()


@every_schedule
@often
@given(st.data())
def test_a_schedule_equals_its_parsed_text_and_its_copies(name, data):
    run, schedule = data.draw(runs(name))
    text = str(schedule)
    assert Schedule.parse(text) == schedule
    assert hf_sched.build("phases", phases=text, num_training_steps=run.steps) == schedule
    assert Schedule.parse(text).curve(peak=run.peak).tolist() == schedule.curve(peak=run.peak).tolist()
    assert pickle.loads(pickle.dumps(schedule)) == copy.deepcopy(schedule) == schedule
    assert hash(copy.deepcopy(schedule)) == hash(schedule)
    assert schedule == run.build()


@pytest.mark.parametrize(
    "text",
    [
        *(f"warmup 30000 {shape} from 0.1 | decay 10" for shape in ("sqrt", "cosine", "exponential", "geometric")),
        *(f"hold 10 | decay 30000 {shape} to 0.1" for shape in ("linear", "cosine", "1-sqrt", "rex", "geometric")),
        *(f"decay 30000 {shape} to 0.1" for shape in ("polynomial 1.7", "exponential 9", "inverse_sqrt 50")),
        "decay 30000 exponential 9 to 0.1 every 7 | restart 10",
    ],
)
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_part_of_a_long_curve_has_the_same_bits(text, data):
    # Long enough for several blocks of a curve and for the processor's vector instructions.
    schedule = Schedule.parse(text)
    first, stop = data.draw(windows(schedule.num_training_steps))
    expected = np.pad(schedule.curve(peak=0.3), (0, 10), mode="edge")
    assert np.array_equal(schedule.rates(first, stop, np.array([0.3]), np.array([0.0]))[0], expected[first:stop])
    assert schedule.lr(first, peak=0.3) == expected[first]
