"""Keys: unknown, misspelt, renamed, repeated, of another trainer or of another program."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hf_sched.check.finding import Finding
from hf_sched.check.renamed import OTHER_NAMES, Renamed, find_renamed
from hf_sched.check.subject import Subject
from hf_sched.plan.launch import LAUNCH_KEYS
from hf_sched.plan.training_config import kinds_with

# Keys for TRL's parser, which sets environment variables, and for the launcher of the command `trl`.
_KEYS_OF_TRL = ("env", *LAUNCH_KEYS)
_HERE = "give the YAML or JSON file of training arguments that a script for transformers or TRL reads"
# The keys that identify a program's files (all of one set), and what to do instead.
_PROGRAMS: tuple[tuple[str, tuple[set[str], ...], str], ...] = (
    ("axolotl", ({"base_model", "datasets"}, {"base_model", "micro_batch_size"}), "use `axolotl preprocess FILE`"),
    ("LLaMA-Factory", ({"stage", "finetuning_type"}, {"stage", "template"}), "use `llamafactory-cli train FILE`"),
    ("Accelerate", ({"compute_environment"}, {"distributed_type", "num_machines"}), ""),
    ("DeepSpeed", ({"zero_optimization"}, {"train_micro_batch_size_per_gpu"}), ""),
    ("verl", ({"actor_rollout_ref"},), ""),
    ("Open-Instruct", ({"dataset_mixer_list"},), ""),
    ("TRL's vLLM server", ({"model", "tensor_parallel_size"},), ""),
)


def check_program(given: Mapping[str, Any], source: str) -> None:
    """Check that a configuration is for transformers or TRL.

    Raises:
        ValueError: It is for another program, so that a list of unknown keys would not help.
    """
    for program, signs, remedy in _PROGRAMS:
        if any(sign <= given.keys() for sign in signs):
            raise ValueError(f"{source}: is a configuration of {program}; {remedy or _HERE}")
    if any(isinstance(value, Mapping) and "_component_" in value for value in given.values()):
        raise ValueError(f"{source}: is a configuration of torchtune; use `tune validate FILE`")


def check_keys(subject: Subject) -> Iterator[Finding]:
    """Repeated, unknown, misspelt, renamed and removed keys, and keys of another kind of trainer."""
    for key, lines in subject.lines.items():
        if len(lines) > 1:  # a YAML loader silently takes the last one
            places = ", ".join(map(str, lines))
            yield subject.error(key, f"is set {len(lines)} times (lines {places}), the last one counts: keep one")
    known = {*subject.arguments, *subject.allowed, *(_KEYS_OF_TRL if subject.kind != "trainer" else ())}
    for key in subject.given:
        renamed = find_renamed(key, subject)
        if key not in known:
            yield _unknown(key, renamed, subject)
        elif renamed and renamed.to and key not in subject.allowed:
            yield subject.warning(key, f"is deprecated: {renamed.advice(subject.given[key])}")


def similar(word: str, known: Iterable[str], cutoff: float = 0.8) -> str | None:
    """The known word that is most similar; None if no word is similar enough for a typing error."""
    return next(iter(difflib.get_close_matches(word.replace("-", "_"), list(known), n=1, cutoff=cutoff)), None)


def _unknown(key: str, renamed: Renamed | None, subject: Subject) -> Finding:
    kind = _called(subject.kind)
    allow = f"`--allow {key}` if your script takes it"
    if renamed is not None:
        given_too = renamed.to in subject.given
        advice = f"leave it out, `{renamed.to}` is set" if given_too else renamed.advice(subject.given[key])
        return subject.error(key, f"is no longer an argument of {kind}: {advice}")
    if OTHER_NAMES.get(key) in subject.arguments:
        return subject.error(key, f"is not an argument of {kind}: write `{OTHER_NAMES[key]}`, or {allow}")
    meant = similar(key, subject.arguments)
    if meant:
        is_sure = similar(key, [meant], cutoff=0.9) is not None
        return subject.error(
            key, f"is not an argument of {kind}: did you mean `{meant}`?{'' if is_sure else f' ({allow})'}"
        )
    if subject.kind == "trainer":
        return subject.warning(key, f"is not an argument of {kind}: fine (`--allow {key}`) if your script takes it")
    others = kinds_with(key)
    if others:
        names = " and ".join(map(_called, others[:3]))
        return subject.error(
            key, f"is an argument of {names}, not of {kind}: leave it out, or check with `--kind {others[0]}`"
        )
    return subject.error(key, f"is not an argument of {kind} or of TRL's script: leave it out, or {allow}")


def _called(kind: str) -> str:
    return "TrainingArguments" if kind == "trainer" else kind.upper() if kind != "reward" else "the reward trainer"
