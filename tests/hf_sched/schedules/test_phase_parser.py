"""The phase language: reading and printing it, and errors that name the wrong word."""

from __future__ import annotations

import json
import re
from fractions import Fraction

import pytest
import yaml
from transformers import TrainingArguments

import hf_sched
from hf_sched import GRAMMAR, ArgumentError, Schedule, decay, hold, restart, warmup
from hf_sched.schedules.phase_parser import PhasesReader, parse
from hf_sched.schedules.phases import Level, ScheduleSpec
from hf_sched.schedules.validation import Amount

STEPS, PER_EPOCH = 1000, 150
RUN = {"num_training_steps": STEPS, "steps_per_epoch": PER_EPOCH, "samples_per_step": 100, "tokens_per_step": 50_000}
# Text and its phases.
TEXTS = {
    "hold": ScheduleSpec((hold(),)),
    "decay": ScheduleSpec((decay(),)),
    "warmup 5% | hold | decay 20% 1-sqrt": ScheduleSpec((warmup("5%"), hold(), decay("20%", "1-sqrt"))),
    "warmup 50|decay 950 cosine;floor 0.1": ScheduleSpec((warmup(50), decay(950, "cosine")), floor_ratio=0.1),
    "warmup 0.05 sqrt from 0.1 to 0.5 | hold 1ep at 0.25 + 0.5 floor | decay linear; floor 0.2": ScheduleSpec(
        (warmup(0.05, "sqrt", start=0.1, to=0.5), hold("1ep", at=Level(0.25, 0.5)), decay()), floor_ratio=0.2
    ),
    "warmup .5ep cosine lars 1e-3 | decay rex from peak to 0.0; min_lr 1e-7": ScheduleSpec(
        (warmup("0.5ep", "cosine", lars=0.001), decay(shape="rex", start="peak", to=0)), min_lr=1e-7
    ),
    "warmup 5% exponential | decay 40% exponential 3 to 0.25 | decay polynomial 2": ScheduleSpec(
        (warmup("5%", "exponential"), decay("40%", "exponential 3", to=0.25), decay(shape="polynomial 2"))
    ),
    "warmup 10% geometric from 0.01 | decay geometric to 1e-3": ScheduleSpec(
        (warmup("10%", "geometric", start=0.01), decay(shape="geometric", to=0.001))
    ),
    "decay 300 inverse_sqrt 9 to 0.5 | restart 300 | restart 1-sqrt from 0.75 to 0.1": ScheduleSpec(
        (decay(300, "inverse_sqrt 9", to=0.5), restart(300), restart(None, "1-sqrt", start=0.75, to=0.1))
    ),
    "hold at 0.5 peak | restart 10% linear from 2 peak + floor to floor": ScheduleSpec(
        (hold(at=0.5), restart("10%", "linear", start=Level(2, 1)))
    ),
    "hold 20% | decay cosine every 5% to 0.5": ScheduleSpec((hold("20%"), decay(shape="cosine", to=0.5, every="5%"))),
    "decay every 30 from 1.0 + 1.0 floor; floor 0.5": ScheduleSpec(
        (decay(start=Level(1, 1), every=30),), floor_ratio=0.5
    ),
    "warmup 9k samples | hold 0.005B tok | decay every 3 samples; horizon 1.5x; floor 0.1": ScheduleSpec(
        (warmup("9000 samples"), hold("5e6tok"), decay(every="3samples")), floor_ratio=0.1, horizon=Fraction(3, 2)
    ),
    "warmup 2M tok | hold 1e-6T tok | decay; min_lr 1e-5; horizon 1e8 tok": ScheduleSpec(
        (warmup("2e6 tokens"), hold("1e6tok"), decay()), min_lr=1e-5, horizon=Amount(Fraction(10**8), "tok")
    ),
}
every_text = pytest.mark.parametrize("text", TEXTS)


@every_text
def test_text_parses_to_its_phases(text):
    assert parse(text) == TEXTS[text]
    spaced = "\n\t".join(["", *text.replace("|", " | ").replace(";", " ; ").split(), ""])
    assert parse(spaced) == TEXTS[text]


def test_every_word_of_the_grammar_is_in_some_text():
    words = " ".join(re.sub(r"([|;%]|(?<=\d)(?:ep|[kMBTx]))", r" \1 ", text) for text in TEXTS).split()
    assert set(re.findall(r'"([^"]+)"', GRAMMAR)) <= set(words)


# Written and read again.


@every_text
def test_a_schedule_reads_back_from_what_it_prints(text):
    schedule = Schedule.parse(text, **RUN)
    again = Schedule.parse(repr(schedule))
    assert again == schedule
    assert (repr(again), str(again)) == (repr(schedule),) * 2
    assert again.curve(STEPS, peak=1.0).tolist() == schedule.curve(peak=1.0).tolist()


def test_without_the_length_of_the_run_every_phase_needs_its_steps():
    assert Schedule.parse("warmup 5 | decay 15").num_training_steps == 20
    for text, what in (
        ("warmup 5 | decay", "`decay` for the rest of the run"),
        ("warmup 5% | decay 15", "`warmup` '5%'"),
    ):
        with pytest.raises(ArgumentError, match=f"`num_training_steps` is None, but {what} depends on it; .*`horizon`"):
            Schedule.parse(text)
    with pytest.raises(ArgumentError, match=r"decay 15 = 20 steps, but the run has 21"):
        Schedule.parse("warmup 5 | decay 15", num_training_steps=21)


# As a list.

YAML = """
    - warmup: 5%
      shape: cosine
      from: 0.1
      to: peak
      lars: 1e-3
    - hold
    - hold:
      at: 1.0 + 0.5 floor
    - decay: 1ep
      shape: polynomial 2
      from: 1.0 + 0.5 floor
      to: floor
      every: 5
    - restart: 100
      shape: 1-sqrt
      from: 0.5
      to:
    """
THE_SAME = (
    "warmup 5% cosine from 0.1 to peak lars 1e-3 | hold | hold at 1.0 + 0.5 floor "
    "| decay 1ep polynomial 2 from 1.0 + 0.5 floor to floor every 5 | restart 100 1-sqrt from 0.5"
)


def test_a_list_of_mappings_texts_and_phases_is_the_same_as_text():
    value = yaml.safe_load(YAML)
    read = PhasesReader()
    same = read("phases", json.loads(json.dumps(value)))
    assert read("phases", value) == read("phases", tuple(value)) == same == parse(THE_SAME)
    mixed = [warmup("5%"), "hold 10 at 0.5", {"to": 0.1, "decay": None}]
    assert read("phases", mixed) == parse("warmup 5% | hold 10 at 0.5 | decay to 0.1")


# Mistakes.

MISTAKES = [
    # A phase or a shape.
    ("warmup 5% | hodl | decay 20%", "phase 2 ('hodl'): `phase` must be one of warmup, hold, decay, restart, received "
     "'hodl'; did you mean 'hold'?"),
    ("5% warmup", "phase 1 ('5% warmup'): `phase` must be one of warmup, hold, decay, restart, received '5%'"),
    ("warmup 5% hold", "phase 1 ('warmup 5% hold'): `hold` is not an argument of warmup"),
    ("hold | decay cosin to 0.1", "phase 2 ('decay cosin to 0.1'): `cosin` is not an argument of decay; did you mean"),
    ("decay polynomial to 0.1", "phase 1 ('decay polynomial to 0.1'): `shape` must be written as 'polynomial POWER'"),
    # An option or its value.
    ("decay cosine too 0.1", "phase 1 ('decay cosine too 0.1'): `too` is not an argument of decay; did you mean 'to'?"),
    ("decay to | hold", "phase 1 ('decay to'): `to` must be a share of the peak (0.1), peak, floor, or a sum of them"),
    ("decay from 0.1 to 0 from 0.2", "phase 1 ('decay from 0.1 to 0 from 0.2'): `from` is given twice"),
    ("warmup 1.5 | decay", "phase 1 ('warmup 1.5'): `duration` must be steps (500)"),
    ("warmup cosine | hold", "phase 1 ('warmup cosine'): `duration` must be steps (500)"),
    ("decay 5 every 0", "phase 1 ('decay 5 every 0'): `every` must be steps (500)"),
    ("warmup 5% from -1 | hold", "phase 1 ('warmup 5% from -1'): `start` must be a share of the peak (0.1)"),
    # An empty phase.
    ("", "phase 1 (''): `phase` must be one of"),
    ("warmup 5% |\n| decay", "phase 2 (''): `phase` must be one of"),
    # An item of a list.
    (["hold", 5], "phase 2 (5): `phase` must be text or a mapping"),
    (["decay 5; floor 0.1"], "phase 1 ('decay 5; floor 0.1'): `5;` is not an argument of decay"),
    ([{"decay": 5, "hold": 5}], "phase 1 ({'decay': 5, 'hold': 5}): `phase` must be a mapping with exactly one of the"),
    ([{"decay": 5, "shap": "x"}], "phase 1 ({'decay': 5, 'shap': 'x'}): `shap` is not an argument of decay, received 'x"
     "'; did you mean 'shape'? decay takes shape, from, to, every"),
    ([{"warmup": None}], "phase 1 ({'warmup': None}): `duration` must be steps (500)"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "message"), MISTAKES)
def test_an_error_shows_the_wrong_phase_and_names_the_wrong_word(value, message):
    with pytest.raises(ArgumentError) as error:
        PhasesReader()("curve", value)
    assert error.value.name == "curve"
    assert str(error.value).startswith(f"`curve` is invalid in {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "decay;",
            "`phases` must have 'floor', 'min_lr' or 'horizon' and one value after the ';', not ''",
        ),
        (
            "decay; flor 0.1",
            "`phases` must have 'floor', 'min_lr' or 'horizon' and one value after the ';', not ' flor 0.1'",
        ),
        (
            "decay; floor 0.1 | hold",
            "`phases` must have 'floor', 'min_lr' or 'horizon' and one value after the ';'",
        ),
        ("decay; floor 10%", "`floor_ratio` must be a finite number, 0 or more, received '10%'"),
        ("decay; floor 2", "`floor_ratio` must be a number from 0 to 1, received 2.0"),
        ("decay; min_lr -1e-5", "`min_lr` must be a finite number, 0 or more, received '-1e-5'"),
    ],
)
def test_a_wrong_floor_in_text_is_an_error(text, message):
    with pytest.raises(ArgumentError) as error:
        Schedule.parse(text, num_training_steps=10)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("value", [None, 5, [], {"decay": 5}])
def test_phases_are_text_or_a_list(value):
    with pytest.raises(ArgumentError, match=r'^`phases` must be text \("warmup 5% .*"\) or a list of phases, received'):
        PhasesReader()("phases", value)


WRONG = ["warmup 5% | decay cosin", ["warmup 5%", "decay cosin"], [{"warmup": "5%"}, {"decay": None, "shape": "cosin"}]]


@pytest.mark.parametrize("phases", WRONG, ids=["text", "list", "mappings"])
def test_wrong_phases_fail_with_the_training_arguments(phases, tmp_path):
    for kwargs in ({"phases": phases}, json.dumps({"phases": phases})):
        with pytest.raises(ArgumentError, match=r"`phases` is invalid in phase 2 .*did you mean 'cosine'\?"):
            TrainingArguments(str(tmp_path), lr_scheduler_type="phases", use_cpu=True, lr_scheduler_kwargs=kwargs)


@pytest.mark.parametrize(
    ("run", "kwargs", "message"),
    [
        ({"max_steps": 10}, {"phases": "warmup 5 | decay 6"}, r"decay 6 = 11 steps, but the run has 10"),
        ({"max_steps": 10, "warmup_steps": 2}, {"phases": "warmup 5 | decay"}, r"`phases` sets a second warmup"),
        ({}, {"phases": "decay; floor 0.1", "phase": 1}, "did you mean 'phases'"),
        ({}, None, "`phases` is required"),
    ],
)
def test_phases_that_do_not_fit_the_run_fail_with_the_training_arguments(run, kwargs, message, tmp_path):
    with pytest.raises(ArgumentError, match=message):
        TrainingArguments(str(tmp_path), lr_scheduler_type="phases", lr_scheduler_kwargs=kwargs, use_cpu=True, **run)


@pytest.mark.parametrize("floor", [{"floor_ratio": 0.1}, {"min_lr": 0.1}])
def test_the_floor_is_in_the_text_or_an_argument_but_not_both(floor):
    (word,) = floor
    text = f"decay; {'floor' if word == 'floor_ratio' else word} 0.1"
    beside = hf_sched.build("phases", num_training_steps=10, phases="decay", **floor)
    assert (
        beside == hf_sched.build("phases", num_training_steps=10, phases=text) == Schedule.parse("decay 10" + text[5:])
    )
    with pytest.raises(ArgumentError, match=f"`{word}` is a second floor: phases has one already"):
        hf_sched.build("phases", num_training_steps=10, phases=text, **floor)


@pytest.mark.parametrize("word", ["__import__('os').abort()", "2**3", "(5)", "0x10", "{5}", "$HOME"])
@pytest.mark.parametrize("text", ["{}", "decay {}", "decay 5 {}", "decay to {}", "decay every {}", "decay; floor {}"])
def test_nothing_is_evaluated(text, word):
    with pytest.raises(ArgumentError):
        parse(text.format(word))
