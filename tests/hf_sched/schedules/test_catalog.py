"""The named schedules' own behaviour: their phases, what they warn of, what they refuse (see also test_cycles.py)."""

from __future__ import annotations

import inspect
import re
import warnings
from typing import Any

import numpy as np
import pytest
import yaml

import hf_sched
from hf_sched.schedules import registry

PEAK = 3e-4
CATALOGUE = [
    name
    for name in hf_sched.available()
    if registry.entry(name).build_phases.__module__ == "hf_sched.schedules.catalog"
]


def build(name: str, trainers_warmup: int = 0, /, steps: int = 100, **kwargs: object) -> hf_sched.Schedule:
    return hf_sched.build(name, num_training_steps=steps, num_warmup_steps=trainers_warmup, **kwargs)


def curve(name: str, trainers_warmup: int = 0, /, **kwargs: object) -> np.ndarray:
    return build(name, trainers_warmup, **kwargs).curve(peak=PEAK)


def doc(name: str) -> str:
    return inspect.getdoc(registry.entry(name).build_phases) or ""


def example(name: str) -> dict[str, Any]:
    """The arguments of the example in a schedule's docstring."""
    return yaml.safe_load(re.search(r"^Example: (\{.*\})$", doc(name), re.MULTILINE)[1])


@pytest.mark.filterwarnings("ignore:cosine_cyclic:UserWarning")
@pytest.mark.parametrize("name", CATALOGUE)
def test_every_schedule_says_what_it_is_its_formula_its_source_and_a_working_example(name):
    assert re.match(r"[A-Z].*\.\n\nFormula: ", doc(name))
    assert re.search(r"^Source: .", doc(name), re.MULTILINE)
    assert build(name, steps=1000, **example(name)).num_training_steps == 1000


@pytest.mark.parametrize(
    ("name", "warmup", "kwargs", "text"),
    [
        ("cosine_floor", 10, {}, "warmup 10 | decay 90 cosine; floor 0.1"),
        ("warmup_cosine", 0, {}, "warmup 5 | decay 95 cosine"),
        ("warmup_cosine", 10, {}, "warmup 10 | decay 90 cosine"),  # the Trainer's stands for its own
        (
            "warmup_cosine",
            0,
            {"warmup": 20, "warmup_shape": "exponential 3", "warmup_start_ratio": 0.1, "min_lr": 1e-5},
            "warmup 20 exponential 3.0 from 0.1 | decay 80 cosine; min_lr 1e-05",
        ),
        ("minimind", 0, {}, "decay 100 cosine from 1.0 + 1.0 floor; floor 0.1"),
        ("minimind", 10, {"floor_ratio": 0.2}, "warmup 10 to 1.0 + 1.0 floor | decay 90 cosine; floor 0.2"),
        ("linear_with_warmup", 10, {}, "warmup 10 | decay 90"),
        ("cosine_restarts", 0, {}, "decay 7 cosine | restart 13 | restart 27 | restart 53"),
        ("cosine_cyclic", 10, {"half_period": 30}, "warmup 10 | decay 30 cosine | warmup 30 cosine | decay 30 cosine"),
        ("polynomial_floor", 10, {}, "warmup 10 | decay 90 polynomial 1.0"),
        ("polynomial_floor", 10, {"power": 2}, "warmup 10 | decay 90 polynomial 2.0"),
        ("exponential", 10, {"gamma": 1.0}, "warmup 10 | hold 90"),
        ("exponential", 0, {"decay_rate": 0}, "hold 100"),
        ("step", 0, {"step_size": 100}, "hold 100"),  # the first fall would be in step 100
        ("multistep", 0, {"milestones": [50]}, "hold 50 | hold 50 at 0.1"),
        ("inverse_sqrt_cooldown", 10, {}, f"warmup 10 | decay 70 inverse_sqrt 7.0 to {8**-0.5!r} | decay 20"),
        ("wsd", 10, {}, "warmup 10 | hold 70 | decay 20 1-sqrt"),
        ("wsd", 10, {"decay": 90, "decay_shape": "cosine"}, "warmup 10 | decay 90 cosine"),
        ("cosine_constant", 10, {}, "warmup 10 | decay 60 cosine to 0.1 | hold 20 | decay 10"),
        (
            "cosine_constant",
            0,
            {"decay": 30, "constant_ratio": 0.5, "anneal": "20%", "anneal_shape": "1-sqrt", "floor_ratio": 0.1},
            "decay 30 cosine to 0.5 | hold 50 | decay 20 1-sqrt; floor 0.1",
        ),
        ("one_cycle", 0, {}, "warmup 30 cosine from 0.04 | decay 70 cosine to 0.0001"),
        ("one_cycle", 10, {"start_ratio": 0, "final_ratio": 0}, "warmup 10 cosine | decay 90 cosine to 0.0"),
        ("rex", 10, {}, "warmup 10 | decay 90 rex"),
        ("gradual_warmup", 0, {}, "warmup 5 | hold 95"),
        ("gradual_warmup", 10, {"multiplier": 4}, "warmup 10 from peak to 4.0 | hold 90"),
        ("lars_warmup", 0, {}, "warmup 5 lars 0.001 | hold 95"),
        (
            "lars_warmup",
            10,
            {"trust_coefficient": 0.02, "after": "wsd", "after_kwargs": {"decay": 30}, "floor_ratio": 0.1},
            "warmup 10 lars 0.02 | hold 60 | decay 30 1-sqrt; floor 0.1",
        ),
        ("phases", 10, {"phases": "hold 50% at 0.5 | decay"}, "warmup 10 to 0.5 | hold 50 | decay 40"),
        ("phases", 0, {"phases": [{"warmup": "5%"}, "hold 5", {"decay": None, "shape": "rex"}], "min_lr": 1e-5},
         "warmup 5 | hold 5 | decay 90 rex; min_lr 1e-05"),
    ],
)  # fmt: skip
def test_a_schedule_has_these_phases(name, warmup, kwargs, text):
    assert str(build(name, warmup, **kwargs)) == text


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_run_of_one_step_trains_at_the_start_or_says_which_argument_does_not_fit(name):
    needs_more = {
        "cosine_cyclic": "half_period",
        "cosine_restarts": "num_cycles",
        "gradual_warmup": "warmup",
        "inverse_sqrt_cooldown": "timescale",
        "lars_warmup": "warmup",
        "multistep": "milestones",
    }
    if name in needs_more:
        with pytest.raises(ValueError, match=f"`{needs_more[name]}` must"):
            build(name, steps=1, **example(name))
    else:
        start = 1.1 if name == "minimind" else 1.0
        assert build(name, steps=1, **example(name)).curve(peak=1.0).tolist() == [start]


# Cosine waves.


@pytest.mark.parametrize(
    ("steps", "warmup", "lengths"),
    [
        # Half a period of 10 steps; a run without a warmup begins with a crest of its own.
        (11, 0, [11]),
        (31, 0, [11, 10, 10]),
        (20, 10, [10, 10]),
        (40, 10, [10, 10, 10, 10]),
    ],
)
def test_a_cosine_wave_that_ends_on_a_trough_is_not_warned_about(steps, warmup, lengths):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = build("cosine_cyclic", warmup, steps, half_period=10)
    assert [segment.steps for segment in schedule.segments] == lengths


@pytest.mark.parametrize(
    ("steps", "lengths", "last"),
    [
        (32, [11, 10, 11], 11),  # one step longer than half a period
        (45, [11, 10, 24], 24),  # a next descent would be of 4 steps: too short
        (46, [11, 10, 10, 10, 5], 5),  # half of one is enough
        (50, [11, 10, 10, 10, 9], 9),
    ],
)
def test_the_last_descent_of_a_wave_is_stretched_or_shortened_to_the_floor_and_it_is_said(steps, lengths, last):
    with pytest.warns(UserWarning, match=f"^cosine_cyclic: .* the last descent has {last} steps rather than 10"):
        schedule = build("cosine_cyclic", steps=steps, half_period=10, floor_ratio=0.1)
    assert [segment.steps for segment in schedule.segments] == lengths
    assert schedule.curve(peak=1.0)[-1] == 0.1


def test_the_crests_of_a_wave_shrink_or_grow_by_their_multiplier():
    for multiplier in (0.7, 1.0, 1.5):
        ours = build("cosine_cyclic", steps=71, half_period=10, peak_multiplier=multiplier, floor_ratio=0.1).curve(
            peak=1.0
        )
        np.testing.assert_allclose(ours[[0, 20, 40, 60]], multiplier ** np.arange(4), rtol=1e-12)
        assert ours[[10, 30, 50, 70]].tolist() == [0.1] * 4
        assert np.abs(np.diff(ours)).max() < 0.16 * max(1, multiplier**3)  # it never jumps


@pytest.mark.parametrize(("half_period", "received"), [("0.1%", "0 steps"), (100, "100 steps"), ("2ep", "200 steps")])
def test_half_a_wave_must_fit_into_the_run(half_period, received):
    with pytest.raises(ValueError, match=rf"`half_period` must be 1 step or more .* 99 steps .* \({received}\)"):
        build("cosine_cyclic", half_period=half_period, steps_per_epoch=100)


@pytest.mark.filterwarnings("ignore:cosine_cyclic:UserWarning")
def test_a_crest_of_a_wave_is_not_below_its_floor():
    with pytest.raises(ValueError, match="must rise, but would fall"):
        build("cosine_cyclic", half_period=10, peak_multiplier=0.1, floor_ratio=0.5)


# Exponentials and stairs.


def test_an_exponential_has_a_constant_ratio_from_the_peak_on():
    for warmup in (0, 10):
        ours = curve("exponential", warmup, gamma=0.97)[max(warmup - 1, 0) :]
        np.testing.assert_allclose(ours[1:] / ours[:-1], 0.97, rtol=1e-12)


@pytest.mark.parametrize("warmup", [0, 10])
def test_an_exponential_may_be_given_by_where_it_ends(warmup):
    falls = 100 - max(warmup, 1)
    ours = curve("exponential", warmup, floor_ratio=0.01)
    assert ours[-1] == pytest.approx(0.01 * PEAK, rel=1e-15)
    np.testing.assert_allclose(ours, curve("exponential", warmup, gamma=0.01 ** (1 / falls)), rtol=1e-12)


@pytest.mark.parametrize("steps", [1, 2])
def test_an_exponential_of_a_short_run_needs_no_other_arguments(steps):
    # A trial run of a few steps should not fail for the arguments of the real one.
    assert curve("exponential", steps=steps, floor_ratio=0.01)[0] == PEAK
    assert curve("exponential", steps=steps, floor_ratio=1.0).tolist() == [PEAK] * steps


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"gamma": 0.9, "decay_rate": 0.1},
        {"gamma": 0.9, "floor_ratio": 0.1},
        {"decay_rate": 0.1, "floor_ratio": 0.1},
        {"gamma": 0.9, "decay_rate": 0.1, "floor_ratio": 0.1},
    ],
)
def test_an_exponential_is_given_by_exactly_one_of_three(given):
    received = ", ".join(f"{name}: {value}" for name, value in given.items()) or "none of them"
    message = f"exactly one of `gamma`, `decay_rate` and `floor_ratio`, received {received}"
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        build("exponential", **given)


def test_a_stair_is_counted_from_the_peak():
    np.testing.assert_allclose(build("step", step_size=60).curve(peak=1.0), [1.0] * 60 + [0.1] * 40, rtol=1e-12)
    ours = build("step", steps=30, step_size=10, gamma=0.5).curve(peak=1.0)
    np.testing.assert_allclose(ours, [1] * 10 + [0.5] * 10 + [0.25] * 10, rtol=1e-12)
    ours = build("step", 5, steps=30, step_size="1ep", gamma=0.5, steps_per_epoch=10).curve(peak=1.0)
    np.testing.assert_allclose(ours[4:], [1] * 10 + [0.5] * 10 + [0.25] * 6, rtol=1e-12)


@pytest.mark.parametrize("milestones", [[50, 75], ["50%", "75%"], [0.5, 75], ["5ep", "7.5ep"], ("50", "75%")])
def test_milestones_are_steps_shares_or_epochs_of_the_run(milestones):
    for warmup in (0, 10):
        ours = curve("multistep", warmup, milestones=milestones, gamma=0.2, steps_per_epoch=10)
        after = ours[warmup:]
        expected = [PEAK] * 50 + [0.2 * PEAK] * 25 + [0.2**2 * PEAK] * 25
        np.testing.assert_allclose(after, expected[warmup:], rtol=1e-15)


@pytest.mark.parametrize(
    ("milestones", "received"),
    [
        ([50, 50], "50 (step 50) behind step 50"),
        ([50, "40%"], "(step 40) behind step 50"),
        ([10], "10 (step 10) behind step 10"),  # the warmup's end
        ([5, 50], "5 (step 5) behind step 10"),
        ([50, 100], "100 (step 100) behind step 50"),
        (["100%"], "(step 100) behind step 10"),
        (["0.1%"], "(step 0) behind step 10"),
        (["11ep"], "(step 110) behind step 10"),
    ],
)
def test_milestones_that_do_not_rise_within_the_run_are_refused(milestones, received):
    message = (
        "`milestones` must rise, after the 10 steps of warmup and before the end of the run (100 steps), received "
    )
    with pytest.raises(ValueError, match=f"{re.escape(message)}.*{re.escape(received)}$"):
        build("multistep", 10, milestones=milestones, steps_per_epoch=10)


def test_milestones_in_epochs_of_unknown_length_are_named():
    with pytest.raises(hf_sched.schedules.validation.EpochsUnknown, match=r"^`milestones.* in epochs \(1ep\)"):
        build("multistep", milestones=["1ep"])


# A peak that is held, left slowly, or climbed beyond.


@pytest.mark.parametrize("decay", ["0.1%", 0.001, "0.01ep", 1])
@pytest.mark.parametrize("warmup", [0, 10, 60])
def test_a_cooldown_too_short_for_a_step_still_gets_one_from_the_peak_that_is_held(warmup, decay):
    # The run is to end on the floor, and the warmup is as long as it was requested.
    schedule = build("wsd", warmup, decay=decay, steps_per_epoch=20)
    assert [(segment.kind, segment.steps) for segment in schedule.segments[-2:]] == [
        ("hold", 99 - warmup),
        ("decay", 1),
    ]
    assert schedule.curve(peak=1.0)[-2:].tolist() == [1.0, 0.0]


def test_the_inverse_square_root_takes_its_time_scale_from_the_warmup():
    assert build("inverse_sqrt_cooldown", 16) == build("inverse_sqrt_cooldown", 16, timescale=16)
    ours = build("inverse_sqrt_cooldown", 16, cooldown=1).curve(peak=1.0)
    assert ours[16 + 3 * 16 - 1] == pytest.approx(0.5, rel=1e-12)  # at four time scales
    with pytest.raises(
        ValueError, match="`timescale` must be 1 step or more, received None; it is the warmup's length"
    ):
        build("inverse_sqrt_cooldown")
    with pytest.raises(ValueError, match="`timescale` must be 1 step or more"):
        build("inverse_sqrt_cooldown", 16, timescale="0.1%")


@pytest.mark.parametrize(
    ("warmup", "cooldown", "kinds"),
    [
        (10, "0.1%", [("warmup", 10), ("decay", 89), ("decay", 1)]),
        (10, 90, [("warmup", 10), ("decay", 90)]),
        (0, 99, [("hold", 1), ("decay", 99)]),
        (0, 100, [("decay", 100)]),
    ],
)
def test_the_cooldown_of_the_inverse_square_root_may_take_all_but_the_warmup(warmup, cooldown, kinds):
    schedule = build("inverse_sqrt_cooldown", warmup, timescale=10, cooldown=cooldown)
    assert [(segment.kind, segment.steps) for segment in schedule.segments] == kinds
    assert schedule.curve(peak=1.0)[-1] == 0.0
    with pytest.raises(ValueError, match="`cooldown` must leave the warmup its 10 of 100 steps, received 91"):
        build("inverse_sqrt_cooldown", 10, cooldown=91)


@pytest.mark.filterwarnings("ignore:cosine_(restarts|cyclic):UserWarning")
@pytest.mark.parametrize("after", [name for name in CATALOGUE if name not in ("gradual_warmup", "lars_warmup")])
def test_a_gradual_warmup_runs_any_schedule_from_a_multiple_of_the_peak(after):
    kwargs = {**example(after), "phases": "hold 20 | decay polynomial 2"} if after == "phases" else example(after)
    kwargs.pop("warmup", None)  # the schedule's own gives way
    if "min_lr" in registry.entry(after).arguments and after not in ("step", "multistep", "one_cycle"):
        kwargs = {**kwargs, "floor_ratio": 0}
    ours = curve("gradual_warmup", 10, multiplier=3, after=after, after_kwargs=kwargs)
    alone = build(after, 10, **kwargs)
    np.testing.assert_allclose(ours[:10], PEAK * (1 + 2 * np.arange(1, 11) / 10), rtol=1e-12)
    if after == "exponential":  # its floor stays a share of the peak, not of its multiple
        alone = build(after, 10, floor_ratio=0.01 / 3)
    np.testing.assert_allclose(ours[9:], alone.curve(peak=3 * PEAK)[9:], rtol=1e-12)


def test_the_floor_behind_a_gradual_warmup_is_one_of_the_peak_be_it_given_here_or_there():
    outside = build("gradual_warmup", 10, multiplier=3, after="cosine_floor", floor_ratio=0.2)
    inside = build("gradual_warmup", 10, multiplier=3, after="cosine_floor", after_kwargs={"floor_ratio": 0.2})
    assert outside == inside
    assert inside.curve(peak=1.0)[-1] == 0.2
    assert build("gradual_warmup", 10, after="rex", min_lr=1e-5).curve(peak=PEAK)[-1] == 1e-5
    # A schedule's own default is kept.
    assert build("gradual_warmup", 10, after="cosine_floor").curve(peak=1.0)[-1] == 0.1


@pytest.mark.parametrize("name", ["gradual_warmup", "lars_warmup"])
@pytest.mark.parametrize("inside", ["floor_ratio", "min_lr"])
@pytest.mark.parametrize("outside", ["floor_ratio", "min_lr"])
def test_the_floor_is_not_given_both_here_and_there(name, inside, outside):
    message = rf"the floor is given twice: in `after_kwargs` \({inside}\) and as {{'{outside}': 0.1}}"
    with pytest.raises(ValueError, match=message):
        build(name, 10, after="rex", after_kwargs={inside: 0.1}, **{outside: 0.1})


@pytest.mark.parametrize("name", ["gradual_warmup", "lars_warmup"])
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"after": "cosine_flor"},
            r"^`after` must be the name .* received 'cosine_flor'; did you mean 'cosine_floor'\?",
        ),
        ({"after": "step"}, r"^`after` \(step\): step needs the argument `step_size`"),
        (
            {"after": "rex", "after_kwargs": {"power": 2}},
            r"^`after` \(rex\): rex has no argument `power` \(received 2\)",
        ),
        (
            {"after": "warmup_cosine", "after_kwargs": {"warmup": 5}},
            r"^`after` \(warmup_cosine\): the warmup is given twi",
        ),
        (
            {"after": "phases", "after_kwargs": {"phases": "warmup 5"}},
            r"^`after` \(phases\): the warmup is given twice",
        ),
        (
            {"after_kwargs": {"power": 2}},
            r"^`after` must name a schedule for the arguments {'power': 2}, received None",
        ),
        ({"min_lr": 0.1}, r"^`after` must name a schedule for the arguments {'min_lr': 0.1}, received None"),
    ],
)
def test_what_comes_after_a_warmup_must_be_a_schedule_without_one(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(name, 10, **kwargs)


def test_a_warmup_with_nothing_after_it_is_refused():
    with pytest.raises(ValueError, match=r"`after`|the phases take"):
        build("gradual_warmup", warmup=0, after="phases", after_kwargs={"phases": "warmup 10"})


@pytest.mark.parametrize("warmup", [0, "0.1%", 100, "100%"])
@pytest.mark.parametrize(("name", "kwargs"), [("gradual_warmup", {"multiplier": 2}), ("lars_warmup", {})])
@pytest.mark.parametrize("after", [None, "rex"])
def test_a_warmup_without_a_step_or_without_an_end_is_refused(name, kwargs, warmup, after):
    with pytest.raises(ValueError, match=r"`warmup` must (have a step or more .* received|be shorter than the run)"):
        build(name, steps=100, **kwargs, after=after, warmup=warmup)


def test_minimind_starts_at_the_peak_and_the_floor_together():
    assert curve("minimind")[0] == PEAK + 0.1 * PEAK
    assert curve("minimind", 10)[9] == PEAK + 0.1 * PEAK
    assert build("minimind", min_lr=1e-5).curve(peak=PEAK)[[0, -1]].tolist() == [PEAK + 1e-5, 1e-5]


@pytest.mark.parametrize(
    ("phases", "given"), [("hold; floor 0.1", {"floor_ratio": 0.1}), ("hold; min_lr 0", {"floor_ratio": 0})]
)
def test_the_floor_of_phases_is_given_once(phases, given):
    with pytest.raises(ValueError, match="the floor is given twice: in `phases` and as `floor_ratio`"):
        build("phases", phases=phases, **given)


@pytest.mark.parametrize("inner", ["gradual_warmup", "lars_warmup"])
@pytest.mark.parametrize("outer", ["gradual_warmup", "lars_warmup"])
def test_a_warmup_that_would_be_dropped_behind_another_is_refused(outer, inner):
    with pytest.raises(ValueError, match=f"`after` must be a schedule without a special warmup .* '{inner}'"):
        hf_sched.build(outer, num_training_steps=100, after=inner)
