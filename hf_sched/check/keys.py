"""Keys that no argument answers to, and keys given twice."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from hf_sched.check.finding import Finding
from hf_sched.check.renamed import ELSEWHERE, moved
from hf_sched.check.subject import Subject, kinds_with
from hf_sched.plan.training_config import RECIPE_KEYS
from hf_sched.plan.world_size import LAUNCH_KEYS

# TRL's parser takes it and sets these environment variables.
_OF_THE_PARSER = ("env",)


def check_keys(subject: Subject) -> Iterator[Finding]:
    """Unknown, misspelt, renamed and removed keys, and those of another kind of trainer."""
    for key in subject.given:
        if key not in _known(subject):
            yield _unknown(key, subject)


def check_repeated(subject: Subject) -> Iterator[Finding]:
    """Keys that are there more than once, of which a YAML loader silently takes the last."""
    for key, lines in subject.positions.repeated.items():
        places = ", ".join(map(str, lines))
        yield subject.error(
            key, f"is given {len(lines)} times (lines {places}), of which only the last counts: keep one"
        )


def near(word: str, known: Iterable[str], cutoff: float = 0.8) -> str | None:
    """The known word that is so near that a slip of the pen explains the difference."""
    return next(iter(difflib.get_close_matches(word.replace("-", "_"), list(known), n=1, cutoff=cutoff)), None)


def _known(subject: Subject) -> set[str]:
    known = {*subject.arguments, *subject.allowed}
    if subject.kind == "trainer":
        return known
    # The command `trl` takes them for the launcher that it starts; a script that is launched otherwise does not.
    launched = re.search(r"accelerate launch|torchrun", subject.config.comments)
    known |= set(() if launched else LAUNCH_KEYS)
    return known | {*_OF_THE_PARSER, *(key for key in RECIPE_KEYS if not _is_foreign(key, subject))}


def _is_foreign(key: str, subject: Subject) -> bool:
    return bool(kinds_with(key)) and subject.kind not in kinds_with(key)


def _unknown(key: str, subject: Subject) -> Finding:
    value: Any = subject.given[key]
    kind = _called(subject.kind)
    entry = moved(key, subject)
    if entry is not None and entry.to in subject.given:
        return subject.error(key, f"is no argument of {kind} now: leave it out, `{entry.to}` is given")
    if entry is not None:
        return subject.error(key, f"is no argument of {kind} now: {entry.advice(value)}")
    same = ELSEWHERE.get(key)
    if same in subject.arguments:
        return subject.error(
            key,
            f"is no argument of {kind}: `{same}` may be what is meant, or `--allow {key}` if your script takes it",
        )
    meant = near(key, subject.arguments)
    if meant:
        surely = near(key, [meant], cutoff=0.9) is not None
        allow = "" if surely else f" (`--allow {key}` if your script takes it)"
        return subject.error(key, f"is no argument of {kind}: did you mean `{meant}`?{allow}")
    others = kinds_with(key)
    if others and subject.kind != "trainer":
        names = " and ".join(map(_called, others[:3]))
        return subject.error(
            key, f"is an argument of {names}, not of {kind}: leave it out, or check with `--kind {others[0]}`"
        )
    if subject.kind == "trainer":
        return subject.warning(key, f"is no argument of {kind}: fine (`--allow {key}`) if your script takes it itself")
    return subject.error(
        key, f"is no argument of {kind} or of TRL's script: leave it out, or `--allow {key}` if your script takes it"
    )


def _called(kind: str) -> str:
    return "TrainingArguments" if kind == "trainer" else kind.upper() if kind != "reward" else "the reward trainer"
