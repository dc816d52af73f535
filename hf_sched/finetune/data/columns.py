"""Maps the columns of the data to those that a recipe takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import yaml
from datasets import Dataset

from hf_sched.finetune.data.conversion import Target
from hf_sched.finetune.data.files import columns_of
from hf_sched.schedules.validation import TEXT, ArgumentError

# Columns of ShareGPT and Alpaca, by the recipe's names; used if the recipe's own are missing.
KNOWN_COLUMNS = {"messages": "conversations", "question": "instruction", "answer": "output"}
# Names in use for questions and answers, to suggest `columns`.
USUAL_NAMES = {
    "question": ("question", "problem", "instruction", "query", "prompt", "input"),
    "answer": ("answer", "solution", "output", "response", "completion", "target", "label"),
}


@dataclass
class ColumnArguments:
    """Arguments for data with other column names, an instruction or a system prompt."""

    columns: dict[str, str] | str | None = field(
        default=None, metadata={"help": "The recipe's column names and yours: {question: problem, answer: label}."}
    )
    instruction: str | None = field(
        default=None,
        metadata={
            "help": "Appended to each `question`, but not to a `prompt`. By default GSM8K's where the answers look "
            'like GSM8K\'s, and none for other data; "" for none.'
        },
    )
    system_prompt: str | None = field(
        default=None, metadata={"help": "System message of every chat that does not begin with its own."}
    )

    def __post_init__(self) -> None:
        self.columns = names_of_columns(self.columns, "columns")
        for name in ("instruction", "system_prompt"):
            if getattr(self, name) is not None:
                TEXT(name, getattr(self, name))


def names_of_columns(given: dict[str, str] | str | None, argument: str) -> dict[str, str] | None:
    """Read a mapping from the recipe's column names to those of the data, given as a dict or as YAML.

    Raises:
        ArgumentError: It is not such a mapping.
    """
    names = yaml.safe_load(given) if isinstance(given, str) else given
    if names is not None and (not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values())):
        allowed = "a mapping from the recipe's column names to yours, such as {question: problem, answer: label}"
        raise ArgumentError(argument, allowed, given)
    return names


def rename_columns(
    rows: Dataset, target: Target, columns: Mapping[str, str], source: str
) -> tuple[Dataset, tuple[str, ...], Mapping[str, str]]:
    """Rename the columns of the data to those of a form that the trainer takes.

    Returns:
        The rows; their form, empty for rows that are tokenized; and the mapping that was used.

    Raises:
        ArgumentError: `columns` does not fit, or the data of `source` have no such form.
    """
    rows = _rename(rows, columns)
    found, form = columns_of(rows), _form(rows, target, columns)
    if form in (None, ("chosen", "rejected")):  # or with a question, under a known name
        known = {ours: theirs for ours, theirs in KNOWN_COLUMNS.items() if theirs in found and ours not in found}
        rows, columns = _rename(rows, known), {**columns, **known}
        form = _form(rows, target, columns)
    if form is None and "input_ids" not in found:
        raise _missing_columns(source, found, target.forms)
    return rows, form or (), columns


def _form(rows: Dataset, target: Target, names: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the form of the rows; the one with most of the columns that the user names goes first."""
    forms = sorted(target.forms, key=lambda form: -len({*form} & {*names}))
    return next((form for form in forms if set(form) <= set(columns_of(rows))), None)


def _missing_columns(source: str, found: Sequence[str], forms: Sequence[Sequence[str]]) -> ArgumentError:
    takes = ", or ".join(dict.fromkeys(" and ".join(f"`{name}`" for name in form) for form in forms))
    form = next((form for form in forms if "question" in form), forms[-1])
    usual = {name: next((word for word in USUAL_NAMES.get(name, (name,)) if word in found), "...") for name in form}
    example = ", ".join(f"{name}: {theirs}" for name, theirs in usual.items())
    rule = f"must map your columns: {source} has the columns {', '.join(found)}, but the recipe takes {takes}"
    is_one = len(found) == 1 and any(separator in found[0] for separator in ";\t|")
    hint = "separate the columns with commas" if is_one else f"write `columns: {{{example}}}`"
    return ArgumentError("columns", rule=rule, hint=hint)


def _rename(rows: Dataset, columns: Mapping[str, str]) -> Dataset:
    found = columns_of(rows)
    for name, given in columns.items():
        if given not in found:
            rule = f"has {name}: {given}, but the data have the columns {', '.join(found)}"
            hint = f"write it the other way round, {given}: {name}" if name in found else ""
            raise ArgumentError("columns", rule=rule, hint=hint)
    moved = {given: name for name, given in columns.items() if given != name}
    covered = [name for name in moved.values() if name in found and name not in moved]
    return rows.remove_columns(covered).rename_columns(moved)
