"""Keys: unknown, misspelt, renamed, repeated, of another trainer or of another program."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from hf_sched.check.context import Subject
from hf_sched.check.renamed import OTHER_NAMES, find_renamed
from hf_sched.plan.processes import LAUNCH_KEYS
from hf_sched.plan.training_config import kinds_with

# Keys for TRL's parser, which sets environment variables, and for the launcher of the command `trl`.
_KEYS_OF_TRL = ("env", *LAUNCH_KEYS)
_HERE = "give the YAML or JSON file of training arguments that a script for transformers or TRL reads"
# The keys that identify a program's files (all of one set), and what to do instead.
_PROGRAMS: tuple[tuple[str, tuple[set[str], ...], str], ...] = (
    ("axolotl", ({"base_model", "datasets"}, {"base_model", "micro_batch_size"}), "use `axolotl preprocess FILE`"),
    ("LLaMA-Factory", ({"stage", "finetuning_type"}, {"stage", "template"}), "use `llamafactory-cli train FILE`"),
    ("Accelerate", ({"compute_environment"}, {"distributed_type", "num_machines"}), _HERE),
    ("DeepSpeed", ({"zero_optimization"}, {"train_micro_batch_size_per_gpu"}), _HERE),
)


def check_program(given: Mapping[str, Any], source: str) -> None:
    """Check that a configuration is for transformers or TRL.

    Raises:
        ValueError: It is for another program, so that a list of unknown keys would not help.
    """
    for program, signs, remedy in _PROGRAMS:
        if any(sign <= given.keys() for sign in signs):
            raise ValueError(f"{source}: is a configuration of {program}; {remedy}")
    if any(isinstance(value, Mapping) and "_component_" in value for value in given.values()):
        raise ValueError(f"{source}: is a configuration of torchtune; use `tune validate FILE`")


def check_keys(subject: Subject) -> None:
    """Find repeated, unknown, misspelt, renamed and removed keys, and keys of another kind of trainer."""
    for key, lines in subject.lines.items():
        if len(lines) > 1:  # a YAML loader silently takes the last one
            places = ", ".join(map(str, lines))
            subject.error(key, f"is set {len(lines)} times (lines {places}), the last one counts: keep one")
    known = {*subject.arguments, *subject.allowed, *(_KEYS_OF_TRL if subject.kind != "trainer" else ())}
    for key, value in subject.given.items():
        renamed = find_renamed(key, subject)
        if key not in known:
            _report_unknown(key, subject)
        elif renamed and renamed.to and key not in subject.allowed:
            subject.warning(key, f"is deprecated: {renamed.advice(value)}")


def _report_unknown(key: str, subject: Subject) -> None:
    kind, others, renamed = _called(subject.kind), kinds_with(key), find_renamed(key, subject)
    allow = f"`--allow {key}` if your script takes it"
    rule = f"is not an argument of {kind}"
    if renamed is not None:
        is_set = f"leave it out, `{renamed.to}` is set"
        advice = is_set if renamed.to in subject.given else renamed.advice(subject.given[key])
        subject.error(key, f"is no longer an argument of {kind}: {advice}")
    elif OTHER_NAMES.get(key) in subject.arguments:
        subject.error(key, f"{rule}: write `{OTHER_NAMES[key]}`, or {allow}")
    elif meant := similar(key, subject.arguments):
        subject.error(key, f"{rule}: did you mean `{meant}`?")
    elif subject.kind == "trainer":
        subject.warning(key, f"{rule}: fine (`--allow {key}`) if your script takes it")
    elif others:
        names = " and ".join(map(_called, others[:3]))
        remedy = f"leave it out, or check with `--kind {others[0]}`"
        subject.error(key, f"is an argument of {names}, not of {kind}: {remedy}")
    else:
        subject.error(key, f"{rule} or of TRL's script: leave it out, or {allow}")


def similar(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most similar; None if no word is similar enough for a typing error."""
    return next(iter(difflib.get_close_matches(word.replace("-", "_"), list(known), n=1, cutoff=0.8)), None)


def _called(kind: str) -> str:
    return {"trainer": "TrainingArguments", "reward": "the reward trainer"}.get(kind, kind.upper())
