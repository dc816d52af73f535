"""The phase language: reading and printing it, and errors that mark the wrong word."""

from __future__ import annotations

import json
import re
import textwrap

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import HfArgumentParser, TrainingArguments

import hf_sched
from hf_sched import GRAMMAR, ArgumentError, Level, Schedule, ScheduleSpec, decay, hold, restart, warmup
from hf_sched.schedules.phase_parser import PhasesReader, parse
from hf_sched.schedules.phases import KINDS

STEPS, PER_EPOCH = 1000, 150
RUN = {"num_training_steps": STEPS, "steps_per_epoch": PER_EPOCH}
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
}
every_text = pytest.mark.parametrize("text", TEXTS)


@every_text
def test_text_parses_to_its_phases(text):
    assert parse(text) == TEXTS[text]
    spaced = "\n\t".join(["", *text.replace("|", " | ").replace(";", " ; ").split(), ""])
    assert parse(spaced) == TEXTS[text]


def test_every_word_of_the_grammar_is_in_some_text():
    words = " ".join(re.sub(r"([|;%]|(?<=\d)ep)", r" \1 ", text) for text in TEXTS).split()
    assert set(re.findall(r'"([^"]+)"', GRAMMAR)) <= set(words)


# Texts as the grammar has them, drawn by it.
numbers = st.one_of(st.integers(0, 10**6).map(str), st.floats(0, 1e6).map(repr), st.sampled_from([".5", "5.", "1E-3"]))
positive = st.floats(1e-300, 1e300).map(repr)
durations = st.one_of(
    st.integers(1, 500).map(str),
    st.floats(0.001, 0.999).map(repr),
    st.floats(0.001, 100).map(lambda percent: f"{percent!r}%"),
    st.floats(0.001, 100).map(lambda epochs: f"{epochs!r}ep"),
)
terms = st.one_of(numbers, st.tuples(st.one_of(st.just(""), numbers), st.sampled_from(["peak", "floor"])).map(" ".join))
levels = st.lists(terms, min_size=1, max_size=3).map(" + ".join)
with_number = st.tuples(st.sampled_from(["polynomial", "exponential", "inverse_sqrt"]), positive).map(" ".join)
rising = st.sampled_from(["linear", "cosine", "sqrt", "exponential", "geometric"])
falling = st.one_of(st.sampled_from(["linear", "cosine", "1-sqrt", "exponential", "geometric", "rex"]), with_number)


@st.composite
def drawn_phases(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(KINDS))
    words = [kind, *draw(st.lists(durations, min_size=kind == "warmup", max_size=1))]
    options = {"at": levels} if kind == "hold" else {"from": levels, "to": levels}
    if kind != "hold":
        words += draw(st.lists(rising if kind == "warmup" else falling, max_size=1))
    options |= {"warmup": {"lars": positive}, "decay": {"every": durations}}.get(kind, {})
    chosen = draw(st.lists(st.sampled_from(sorted(options)), unique=True))
    return " ".join([*words, *(f"{option} {draw(options[option])}" for option in chosen)])


floors = st.sampled_from([("", {}), ("; floor 0.5", {"floor_ratio": 0.5}), ("; min_lr 1e-5", {"min_lr": 1e-5})])


@settings(max_examples=50, deadline=None)
@given(st.lists(drawn_phases(), min_size=1, max_size=4), floors)
def test_everything_in_the_grammar_parses(phases, floor):
    spec = parse(" | ".join(phases) + floor[0])
    assert [phase.kind for phase in spec.phases] == [phase.split()[0] for phase in phases]
    assert spec == ScheduleSpec(spec.phases, **floor[1])


# Written and read again.


@every_text
def test_a_schedule_reads_back_from_what_it_prints(text):
    schedule = Schedule.parse(text, **RUN)
    again = Schedule.parse(repr(schedule))
    assert again == schedule
    assert (repr(again), str(again)) == (repr(schedule),) * 2
    assert again.curve(peak=1.0).tolist() == schedule.curve(peak=1.0).tolist()


FEWEST_WORDS = {
    "decay 100": [decay()],
    "restart 100": [restart()],  # alone it is a first decay, but says what it is
    "restart 100 linear": [restart(shape="linear")],
    "warmup 5 | hold 75 | decay 20 1-sqrt; floor 0.1": [warmup(5), hold(), decay(20, "1-sqrt")],
    "decay 100; min_lr 0.0": [warmup(0), hold("0%"), decay()],
    "hold 50 at 0.5 | decay 50": [hold(50, at=0.5), decay(start=0.5)],
    "decay 50 to 0.1 | warmup 10 to 0.5 | decay 40": [decay(50, to=0.1), warmup(10, to=0.5), decay()],
    "warmup 5 | hold 95": [warmup(5, start=0), hold()],
    "warmup 5 from floor to 1.0 + 1.0 floor | hold 95; floor 0.1": [
        *(warmup(5, start="floor", to="peak + floor"), hold())
    ],
    "decay 80 every 25 | restart 20 from 0.5": [decay("80%", every="25%"), restart(start=0.5)],
    "warmup 5 lars 0.001 | hold 95": [warmup(5, lars="1e-3"), hold()],
    "decay 100 geometric; floor 1e-300": [decay(shape="geometric")],
    "decay 30 geometric to 0.1 | decay 70 to 0.5 floor; min_lr 1e-05": [
        *(decay(30, "geometric", to=0.1), decay(70, to="0.5 floor"))
    ],
}


@pytest.mark.parametrize("text", FEWEST_WORDS)
def test_a_schedule_is_written_in_the_fewest_words(text):
    floor = re.findall("; (.*) (.*)", text.replace("; floor", "; floor_ratio"))
    schedule = Schedule.from_phases(FEWEST_WORDS[text], num_training_steps=100, **dict(floor))
    assert str(schedule) == text
    assert Schedule.parse(text) == schedule


def test_without_the_length_of_the_run_every_phase_needs_its_steps():
    assert Schedule.parse("warmup 5 | decay 15").num_training_steps == 20
    for text in ("warmup 5 | decay", "warmup 5% | decay 15", "warmup 1ep | decay 15"):
        with pytest.raises(
            ArgumentError, match=f"`num_training_steps` is required, because .*'{re.escape(text)}' is in steps"
        ):
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


def read(value: object) -> ScheduleSpec:
    return PhasesReader()("phases", value)


def test_a_list_of_mappings_from_yaml_is_the_same_as_text():
    value = yaml.safe_load(textwrap.dedent(YAML))
    assert [type(item) for item in value] == [dict, str, dict, dict, dict]
    assert read(value) == read(json.loads(json.dumps(value))) == read(tuple(value)) == parse(THE_SAME)


def test_a_list_may_mix_texts_mappings_and_phases():
    assert read([{"to": 0.1, "decay": "5%"}]) == parse("decay 5% to 0.1")
    mixed = [warmup("5%"), "hold 10 at 0.5", {"decay": None, "to": 0.1}]
    assert read(mixed) == parse("warmup 5% | hold 10 at 0.5 | decay to 0.1")
    assert read(read(mixed)) == read(mixed)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("dekay 5", r"is invalid: 'dekay' is not a phase; did you mean 'decay'\?\n    dekay 5\n    \^\^\^\^\^$"),
        ("decay 5; floor 0.1", "must be a list of single phases, received 'decay 5; floor 0.1'"),
        *((value, "must be a list of phases, each text or a mapping, received") for value in (5, None, ["decay", 5])),
        *(
            (value, "must be mappings with exactly one of the keys warmup, hold, decay, restart, received {")
            for value in ({}, {"shape": "cosine"}, {"decay": 5, "hold": 5})
        ),
        ({"decay": 5, "shap": "x"}, r"has an unknown key 'shap' in phase 3 .* 'x'; did you mean 'shape'\?.* to, every"),
        ({"hold": 5, "shape": "cosine"}, r"has an unknown key 'shape' in phase 3 \(hold\), .* hold takes at$"),
        ({"decay": 5, 5: 5}, r"has an unknown key 5 in phase 3 \(decay\), received 5"),
        ({"warmup": None}, "is invalid in phase 3: `warmup` must be a number of steps .*received None"),
        ({"decay": 5, "every": 0}, "is invalid in phase 3: `every` must be .*above 0, received 0"),
        ({"decay": 5, "from": -1}, "is invalid in phase 3: `from` must be a finite number, 0 or more, received -1"),
    ],
)  # fmt: skip
def test_a_wrong_item_of_a_list_is_shown_or_named_by_its_place(item, message):
    with pytest.raises(ArgumentError, match=rf"^`phases` {message}"):
        read(["warmup 5%", "hold", item])


def test_phases_are_text_or_a_list():
    for value in (None, 5, [], (), {"decay": 5}, {"phases": "decay"}):
        with pytest.raises(ArgumentError, match=r'^`phases` must be text \("warmup 5% .*"\) or a list of phases, rec'):
            read(value)
    for value in (None, 5, ["decay"], b"decay"):
        with pytest.raises(ArgumentError, match=r"^`phases` must be text in the phase language, received "):
            parse(value)


# Mistakes.


def marked(error: Exception) -> tuple[str, str]:
    """The words that an error marks, and its message."""
    message, shown, marks = str(error).rsplit("\n", 2)
    assert re.fullmatch(r" {4,}\^+", marks), marks
    return shown.ljust(len(marks))[marks.index("^") : len(marks)], message


MISTAKES = [
    # A phase or a shape.
    ("warmup 5% | hodl | decay 20%", "hodl", "'hodl' is not a phase; did you mean 'hold'?"),
    ("Decay", "Decay", "'Decay' is not a phase; did you mean 'decay'?"),
    ("5% warmup", "5%", "'5%' is not a phase"),
    ("warmup 5% hold", "hold", "'hold' is not a shape and not an option of warmup"),
    ("warmup 5% | decay cosin to 0.1", "cosin", "'cosin' is not a shape and not an option of decay; did you"),
    ("warmup 5% 1-sqrt | decay", "1-sqrt", "`shape` must be one of linear, cosine, sqrt, exponential [RATE]"),
    ("decay polynomial to 0.1", "polynomial", "`shape` must be 'polynomial' and one number, its power"),
    ("decay polynomial -2 to 0.1", "-2", "'polynomial' and its power, a number above 0, received"),
    ("decay polynomial 2 3 to 0.1", "3", "'3' is not an option of decay"),
    ("hold 5 cosine", "cosine", "'cosine' is not an option of hold"),
    # An option.
    ("decay cosine too 0.1", "too", "'too' is not an option of decay; did you mean 'to'?"),
    ("restart 5 linear every 3", "every", "'every' is not an option of restart"),
    ("decay 5 linear at 0.5", "at", "'at' is not an option of decay"),
    # A value that is missing or given twice.
    ("warmup cosine | hold", "warmup", "expected the duration of the warmup (500, 5% or 1ep)"),
    ("decay to | hold", "to", "expected a value after 'to'"),
    ("decay from to 0.5", "from", "expected a value after 'from'"),
    ("decay from 0.1 to 0 from 0.2", "from", "'from' is given twice"),
    ("hold 5 6", "6", "'6' is not an option of hold"),
    ("decay 5 6", "6", "'6' is not a shape and not an option of decay"),
    # A wrong value.
    ("warmup 1.5 | decay", "1.5", "`duration` must be a number of steps"),
    ("decay 5 every 0", "0", "`every` must be a number of steps"),
    ("warmup 5% lars 0 | hold", "0", "`lars` must be a finite number above 0, received '0'"),
    ("warmup 5% from -1 | hold", "-1", "`from` must be a share of the peak (0.1), peak, floor"),
    ("hold 5 at peek", "peek", "`at` must be"),
    ("decay to 0.1 +", "0.1 +", "`to` must be a share of the peak (0.1), peak, floor"),
    # Nothing.
    ("", " ", "expected a phase (warmup, hold, decay, restart)"),
    ("   ", "   ", "expected a phase"),
    ("warmup 5% || decay", "|", "expected a phase"),
    ("warmup 5% | decay |", " ", "expected a phase"),
    ("; floor 0.1", ";", "expected a phase"),
    # The floor.
    ("decay;", " ", "expected 'floor' or 'min_lr' after ';'"),
    ("decay; floor", "floor", "expected a number after 'floor'"),
    ("decay; flor 0.1", "flor", "'flor' is not a floor; did you mean 'floor'?"),
    ("decay; floor 10%", "10%", "`floor_ratio` must be a number from 0 to 1, received '10%'"),
    ("decay; min_lr -1e-5", "-1e-5", "`min_lr` must be a finite number, 0 or more, received '-1e-5'"),
    ("decay; floor 0.1 | hold", "|", "expected"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "word", "message"), MISTAKES)
def test_an_error_marks_the_wrong_word_and_nothing_else(text, word, message):
    with pytest.raises(ArgumentError, match=r"^`curve` is invalid: ") as error:
        parse(text, "curve")
    words, says = marked(error.value)
    assert words == word
    assert message in says
    assert str(error.value).split("\n")[-2] == f"    {text}"


def test_of_two_equal_words_the_wrong_one_is_marked():
    with pytest.raises(ArgumentError) as error:
        parse("decay from 0.1 to 0 from 0.2")
    assert str(error.value).split("\n")[-1].index("^") == 4 + 20


def test_marks_are_under_their_word_in_text_over_several_lines():
    text = yaml.safe_load("text: |\n  warmup 5%\n  |\thold\n  | decay 20% cosin\n")["text"]
    with pytest.raises(ArgumentError, match="did you mean 'cosine'") as error:
        parse(text)
    assert marked(error.value)[0] == "cosin"
    assert str(error.value).count("\n") == 2


WRONG = ["warmup 5% | decay cosin", ["warmup 5%", "decay cosin"], [{"warmup": "5%"}, {"decay": None, "shape": "cosin"}]]


@pytest.mark.parametrize("phases", WRONG, ids=["text", "list", "mappings"])
def test_wrong_phases_fail_with_the_training_arguments(phases, tmp_path):
    for kwargs in ({"phases": phases}, json.dumps({"phases": phases})):
        with pytest.raises(ArgumentError, match=r"`phases` is invalid.*(?s:.)*did you mean 'cosine'\?"):
            TrainingArguments(str(tmp_path), lr_scheduler_type="phases", use_cpu=True, lr_scheduler_kwargs=kwargs)
    flags = ["--output_dir", str(tmp_path), "--lr_scheduler_type", "phases", "--lr_scheduler_kwargs", kwargs]
    with pytest.raises(ArgumentError, match="did you mean 'cosine'"):
        HfArgumentParser(TrainingArguments).parse_args_into_dataclasses([*flags, "--use_cpu", "True"])


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


@pytest.mark.parametrize("max_steps", [-1, 10])
def test_phases_in_epochs_wait_for_the_trainer(tmp_path, max_steps):
    given = {"lr_scheduler_type": "phases", "lr_scheduler_kwargs": {"phases": "warmup 1ep | decay"}}
    args = TrainingArguments(str(tmp_path), use_cpu=True, max_steps=max_steps, **given)
    assert args.lr_scheduler_kwargs == given["lr_scheduler_kwargs"]


@pytest.mark.parametrize("floor", [{"floor_ratio": 0.1}, {"min_lr": 0.1}])
def test_the_floor_is_in_the_text_or_an_argument_but_not_both(floor):
    (word,) = floor
    text = f"decay; {'floor' if word == 'floor_ratio' else word} 0.1"
    beside = hf_sched.build("phases", num_training_steps=10, phases="decay", **floor)
    assert (
        beside == hf_sched.build("phases", num_training_steps=10, phases=text) == Schedule.parse("decay 10" + text[5:])
    )
    with pytest.raises(ArgumentError, match=f"`{word}` is a second floor: the curve of `phases` has one already"):
        hf_sched.build("phases", num_training_steps=10, phases=text, **floor)


@pytest.mark.parametrize(
    "word",
    ["__import__('os').abort()", "2**3", "(5)", "1+1", "0x10", "lambda:5", "hf_sched", "{5}", "$HOME", "5;decay"],
)
@pytest.mark.parametrize("text", ["{}", "decay {}", "decay 5 {}", "decay to {}", "decay every {}", "decay; floor {}"])
def test_nothing_is_evaluated(text, word):
    with pytest.raises(ArgumentError, match=r"^`phases` is invalid: .*\n.*\n +\^+$"):
        parse(text.format(word))
