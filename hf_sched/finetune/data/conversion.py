"""Converts rows of any supported form to the chat or text that a trainer takes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Number
from typing import Any

FINAL_ANSWER = "Reason step by step, and give the final answer as a number after ####."

# Before a column of a row, while it is converted: `datasets` converts a new value to the type of the column that had
# its name before, which turns text into numbers and drops the keys of messages.
GIVEN = "given: "

Row = dict[str, Any]
Messages = list[dict[str, Any]]

# Role names of ShareGPT and its relatives, and the ones that chat templates know.
ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
}
KNOWN_ROLES = ("system", "developer", "user", "assistant", "tool", "function")

_GSM8K_ANSWER = re.compile(r"####[ \t]*[-+]?\$?\.?\d[\d,.]*%?\s*$")
# `<<48/2=24>>`: arithmetic, one equals sign, no space after the brackets. Shifts and streams of code do not match.
_CALCULATOR_MARK = re.compile(r"<<[\d.,+\-*/()%$][\d\s.,+\-*/()%$]*=[\d\s.,+\-*/()%$]*[\d.)%]>>")


@dataclass(frozen=True)
class Target:
    """What a trainer takes.

    Args:
        forms: The row forms, by their columns; the first form whose columns are all there is used.
        convert: Converts a row with a `question`; see `to_problem` for its arguments.
        takes_other_columns: Whether the other columns are of use: rewards receive them.
        is_last_turn_only: Whether only the last turn of `messages` is trained on.
    """

    forms: tuple[tuple[str, ...], ...]
    convert: Callable[..., Row]
    takes_other_columns: bool = False
    is_last_turn_only: bool = False


@dataclass(frozen=True)
class Conversion:
    """Converts a row of one form; made by the loader for a whole split."""

    target: Target
    form: tuple[str, ...]
    instruction: str
    is_gsm8k: bool
    system_prompt: str | None = None

    def __call__(self, row: Row) -> Row:
        """Return the columns that the row's form becomes."""
        row = {name.removeprefix(GIVEN): _standard(value) for name, value in row.items()}
        if "question" in self.form:
            asked = {**row, "question": _with_input(row)}
            made = self.target.convert(asked, self.instruction, is_gsm8k=self.is_gsm8k)
        else:
            made = _all_chat_or_all_text({name: row[name] for name in self.form})
            made |= {name: row[name] for name in ("answer",) if name in row}
        system = row.get("system") or self.system_prompt
        if system:
            for name in ("prompt",) if "prompt" in made else [*made]:
                made[name] = _with_system(made[name], system)
        if self.target.is_last_turn_only and "messages" in made:
            *prompt, answer = made["messages"]
            made = {"prompt": prompt, "completion": [answer]}
        return made


def to_demonstration(row: Row, instruction: str | None = None, *, is_gsm8k: bool | None = None) -> Row:
    """Convert a question and its worked answer to a chat to imitate, without GSM8K's calculator marks `<<24/2=12>>`.

    The arguments are those of `to_problem`.

    Examples:
        >>> to_demonstration({"question": "2 + 2?", "answer": "<<2+2=4>>4"})["completion"]
        [{'role': 'assistant', 'content': '4'}]
    """
    answer = _CALCULATOR_MARK.sub("", as_text(row["answer"]))
    return {"prompt": _user(row, instruction, is_gsm8k), "completion": _assistant(answer)}


def to_problem(row: Row, instruction: str | None = None, *, is_gsm8k: bool | None = None) -> Row:
    """Convert a question and its answer to a prompt and the final answer, for GRPO and evaluation.

    Args:
        row: `question` and `answer`.
        instruction: Text below the question. By default GSM8K's for a row of GSM8K, and none for others.
        is_gsm8k: Whether the data are those of GSM8K, whose answers end in `#### ` and a number. By default the row
            decides.

    Returns:
        The prompt, and the answer: what follows the last `####` in GSM8K's data or where the instruction mentions
        `####`, else all of it.

    Examples:
        >>> to_problem({"question": "2 + 2?", "answer": "It is 4. #### 4"})["answer"]
        '4'
        >>> to_problem({"question": "The capital of France?", "answer": "Paris"})
        {'prompt': [{'role': 'user', 'content': 'The capital of France?'}], 'answer': 'Paris'}
    """
    answer = as_text(row["answer"])
    if is_gsm8k is None:
        is_gsm8k = looks_like_gsm8k([answer])
    if is_gsm8k or "####" in (instruction or ""):
        answer = answer.rpartition("####")[2].strip()
    return {"prompt": _user(row, instruction, is_gsm8k), "answer": answer}


def to_preference(row: Row, instruction: str | None = None, *, is_gsm8k: bool | None = None) -> Row:
    """Convert a question with a chosen and a rejected answer to chats, for DPO.

    >>> to_preference({"question": "2 + 2?", "chosen": "4", "rejected": "5"})["rejected"]
    [{'role': 'assistant', 'content': '5'}]
    """
    answers = {name: _assistant(row[name]) for name in ("chosen", "rejected")}
    return {"prompt": _user({"answer": row["chosen"], **row}, instruction, is_gsm8k), **answers}


SFT_ROWS = Target((("messages",), ("prompt", "completion"), ("text",), ("question", "answer")), to_demonstration)
GRPO_ROWS = Target((("prompt",), ("question", "answer")), to_problem, takes_other_columns=True)
DPO_ROWS = Target(
    (("prompt", "chosen", "rejected"), ("question", "chosen", "rejected"), ("chosen", "rejected")), to_preference
)
TARGETS = {"sft": SFT_ROWS, "grpo": GRPO_ROWS, "dpo": DPO_ROWS}


def sft_target(dataset_text_field: str = "text", *, is_last_turn_only: bool = False) -> Target:
    """Return what SFT takes, given the name of the column with plain text."""
    own = () if dataset_text_field == "text" else ((dataset_text_field,),)
    return replace(SFT_ROWS, forms=(*own, *SFT_ROWS.forms), is_last_turn_only=is_last_turn_only)


def looks_like_gsm8k(answers: Sequence[Any]) -> bool:
    """Return whether nearly all answers end in `#### ` and a number, as those of GSM8K do."""
    matching = sum(isinstance(answer, str) and bool(_GSM8K_ANSWER.search(answer)) for answer in answers)
    return bool(answers) and matching >= 0.9 * len(answers)


def as_text(value: Any) -> str:
    """Return an answer as text; `12.0`, to which `datasets` turns a 12 beside a 1.5, is `12`."""
    if isinstance(value, str):
        return value
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else json.dumps(value, default=str)


def role_of(turn: Mapping[str, Any]) -> Any:
    """Return the role of a turn of a chat, by the name that chat templates know if there is one."""
    name = turn.get("role") or turn.get("from")
    known = str(name).lower()
    return known if known in KNOWN_ROLES else ROLES.get(known, name)


def to_messages(turns: Sequence[Mapping[str, Any]]) -> Messages:
    """Convert a chat in ShareGPT's form, `from` and `value` with roles such as human and gpt, to `role` and `content`.

    >>> to_messages([{"from": "human", "value": "2 + 2?"}])
    [{'role': 'user', 'content': '2 + 2?'}]
    """
    messages = []
    for turn in turns:
        content = turn.get("value") if turn.get("content") is None else turn["content"]
        others = {key: value for key, value in turn.items() if key not in ("from", "value")}
        messages.append({**others, "role": role_of(turn), "content": content})
    return messages


def _standard(value: Any) -> Any:
    if isinstance(value, Number):
        return as_text(value)
    is_chat = isinstance(value, list) and value and isinstance(value[0], Mapping) and {"role", "from"} & set(value[0])
    return to_messages(value) if is_chat else value


def _all_chat_or_all_text(row: Row) -> Row:
    """Make all columns chats where one is; TRL rejects a mixture."""
    if not any(isinstance(value, list) for value in row.values()):
        return row
    if isinstance(row.get("prompt"), str) and "chosen" in row and row["chosen"][0]["role"] != "assistant":
        del row["prompt"]  # both chats begin with it
    roles = {name: "user" if name == "prompt" else "assistant" for name in row}
    return {
        name: value if isinstance(value, list) else [{"role": roles[name], "content": value}]
        for name, value in row.items()
    }


def _with_input(row: Row) -> str:
    """Return the question, followed by Alpaca's `input` if there is one."""
    return "\n\n".join(part for part in (row["question"], row.get("input")) if part and part.strip())


def _with_system(chat: Messages, system: str) -> Messages:
    return chat if chat[0]["role"] in ("system", "developer") else [{"role": "system", "content": system}, *chat]


def _user(row: Row, instruction: str | None, is_gsm8k: bool | None) -> Messages:
    question = row["question"]
    if instruction is None:
        is_gsm8k = looks_like_gsm8k([row["answer"]]) if is_gsm8k is None else is_gsm8k
        instruction = FINAL_ANSWER if is_gsm8k else ""
    return [{"role": "user", "content": f"{question}\n{instruction}" if instruction else question}]


def _assistant(answer: str | Messages) -> Messages:
    return [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer
