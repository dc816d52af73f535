"""Keys: unknown, misspelt, renamed, repeated, or of another trainer."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from hf_sched.check.finding import Finding
from hf_sched.check.renamed import find_renamed
from hf_sched.check.subject import Subject
from hf_sched.plan.processes import LAUNCH_KEYS
from hf_sched.plan.training_config import kinds_with

# Keys for TRL's parser, which sets environment variables, and for the launcher of the command `trl`.
_KEYS_OF_TRL = ("env", *LAUNCH_KEYS)


def check_keys(subject: Subject) -> Iterator[Finding]:
    """Find repeated, unknown, misspelt, renamed and removed keys, and keys of another kind of trainer."""
    for key, lines in subject.lines.items():
        if len(lines) > 1:  # a YAML loader silently takes the last one
            places = ", ".join(map(str, lines))
            yield subject.error(key, f"is set {len(lines)} times (lines {places}), the last one counts: keep one")
    allowed = subject.allowed or ()
    known = {*subject.config.fields, *allowed, *(_KEYS_OF_TRL if subject.config.kind != "trainer" else ())}
    for key, value in subject.config.given.items():
        renamed = find_renamed(key, subject.config.fields)
        if key not in known:
            yield _unknown(key, subject)
        elif renamed and renamed.to and key not in allowed:
            yield subject.warning(key, f"is deprecated: {renamed.advice(value)}")


def _unknown(key: str, subject: Subject) -> Finding:
    kind, others, renamed = _called(subject.config.kind), kinds_with(key), find_renamed(key, subject.config.fields)
    rule = f"is not an argument of {kind}"
    if renamed is not None:
        is_set = f"leave it out, `{renamed.to}` is set"
        advice = is_set if renamed.to in subject.config.given else renamed.advice(subject.config.given[key])
        return subject.error(key, f"{rule}: {advice}")
    if similar := difflib.get_close_matches(key.replace("-", "_"), subject.config.fields, n=1, cutoff=0.8):
        return subject.error(key, f"{rule}: did you mean `{similar[0]}`?")
    if subject.config.kind == "trainer":
        return subject.warning(key, f"{rule}: fine (`--allow {key}`) if your script takes it")
    remedy = f"`--allow {key}` if your script takes it"
    if others:
        rule = f"is an argument of {' and '.join(map(_called, others[:3]))}, not of {kind}"
        remedy = f"check with `--kind {others[0]}`"
    else:
        rule = f"{rule} or of TRL's script"
    return subject.error(key, f"{rule}: leave it out{'' if subject.allowed is None else f', or {remedy}'}")


def _called(kind: str) -> str:
    return {"trainer": "TrainingArguments", "reward": "the reward trainer"}.get(kind, kind.upper())
