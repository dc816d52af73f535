r"""Finds the final answer in a completion, and numbers, options and formulas in an answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

_REASONING = re.compile(
    r"[<\[◁](/)?(?:seed:)?(?:think|thinking|thoughts?|reasoning)[>\]▷]|<\|(?:begin|(end))_of_thought\|>", re.IGNORECASE
)
_EXPLICIT = re.compile(r"\\(?:boxed|fbox)\s*\{|<answer>")
_HASHES = re.compile(r"(?<!#)#{4,}(?!#)")
_LEAD_IN = re.compile(r"\b(?:answer|ans)\b[^\n.:=]{0,60}?(?:\bis\b|:|=)[\s:*]*", re.IGNORECASE)
_HEADING_NUMBER = re.compile(r"\d+[.)]\s+[^\W\d]")
_RIVAL = re.compile(r"\W*(?:[,;&/]|or|and)\W*")  # between an answer and another one
_TEXT_COMMAND = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:bf|it|rm)|mbox)\s*\{([^{}]*)\}")
_FRACTION = re.compile(r"(?<!\d)\\[dt]?frac\s*\{([^{}]+)\}\s*\{([^{}]+)\}")

# A number that is no operand of a longer expression: neither 10 nor 3 in 10-3, neither 12 nor 30 in 12:30, nor the 16
# of \sqrt{16}, but the 72 in 48 + 24 = 72. The quotient of two numbers is a number.
_DIGITS = r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    r"(?<![\w{^])(?<!\d[.,])(?<!\d:)(?<![\w)}][-+*/^])(?<![\d)}]\s[-+*/^])(?<![\d)}]\s[-+*/^]\s)"
    r"(?<!\b[a-zA-Z]\s[-+*/^]\s)"
    rf"((?:(?<![\d)]\s)[-+])?(?:{_DIGITS}))(?:\s?/\s?({_DIGITS}))?"
    r"(?!\d|[.,]\d|\s?[-+*/^:]\s?(?:[\d({\\]|[a-zA-Z]\b)|\s?\\[a-zA-Z]|[xyzi]\b|_)"
)
_TEN = r"10\s*(?:\^|\*\*)\s*\{?\s*([-+]?\d{1,3})\b\}?"
_TIMES_TEN = rf"(?:[eE]([-+]?\d{{1,3}})\b|\s*(?:\\times|\\cdot|[\u00d7·*x])\s*{_TEN})"
_POWER = re.compile(rf"(?<![\w.^])(?:({_DIGITS}){_TIMES_TEN}|{_TEN})")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")

AND = re.compile(r",?\s+(?:and|or)\b")  # between several answers
LETTER = re.compile(r"\(?([A-J])\)?|\(?([A-J])\)\s.*")
_LETTER_IN_ANSWER = r"\(([A-Ja-j])\)|(?<![\w'\u2019])([A-HJ]|I(?!\s+[a-z]))(?![\w'\u2019])|^([a-j])$"
_LETTER_IN_TEXT = r"(?:\b(?:[Oo]ption|[Cc]hoice|[Cc]hoose|[Pp]ick)\s+(?:is\s+)?\W{0,3}|\()([A-J])\b"
_NOT_WORDS = re.compile(r"\\[a-zA-Z]+|\b(?:sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|max|min|mod|gcd|pi|inf)\b")


def without_reasoning(text: str) -> str:
    """Remove reasoning blocks, also one that the prompt opened, and one that was cut off.

    >>> without_reasoning("<think>3?</think>4")
    '4'
    """
    kept: list[str] = []
    is_open, start = False, 0
    for tag in _REASONING.finditer(text):
        if tag[1] or tag[2]:
            kept = kept if is_open else []
            is_open, start = False, tag.end()
        elif not is_open:
            kept.append(text[start : tag.start()])
            is_open = True
    return "".join(kept if is_open else [*kept, text[start:]])


def marked_answer(text: str, *, is_numeric: bool) -> str | None:
    r"""Return the last answer in `\boxed{}` or `<answer>`, else the last one after `####`, None without any.

    An empty `\boxed{}` and a heading `#### Conclusion` are no answers. Under `is_numeric` neither is one of words only
    after `####`.
    """
    for mark in reversed(list(_EXPLICIT.finditer(text))):
        rest = text[mark.end() :]
        answer, end, _ = rest.partition("</answer>") if mark[0] == "<answer>" else _partition_at_brace(rest)
        if answer.strip() or not end:  # without its end, it is cut off
            return answer
    for mark in reversed(list(_HASHES.finditer(text))):
        line, _, below = text[mark.end() :].partition("\n")
        answer = _LEAD_IN.sub("", line).strip()
        if _is_answer(clean(answer), below) and not (is_numeric and not re.search(r"[\d\\]", answer)):
            return answer
    return None


def _partition_at_brace(text: str) -> tuple[str, str, str]:
    depth = 0
    for found in re.finditer(r"\\.|[{}]", text):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth < 0:
            return text[: found.start()], "}", text[found.end() :]
    return text, "", ""


def _is_answer(line: str, below: str) -> bool:
    if not line or not below.strip():
        return bool(line)
    if _NUMBER.match(_simplified(line)):
        return not _HEADING_NUMBER.match(line)
    return not re.search(r"[^\W\d_]{2}", _NOT_WORDS.sub("", line))


def anchored(text: str) -> list[str]:
    """Return what follows "the answer is" or "Answer:" on its line or the next, the last first.

    >>> anchored("**Answer:** 18")
    ['18']
    """
    return [text[lead_in.end() :].partition("\n")[0] for lead_in in reversed(list(_LEAD_IN.finditer(text)))]


def clean(text: str) -> str:
    """Remove marks around an answer, such as dollars, asterisks and the final full stop, and extra white space."""
    text = " ".join(re.sub(r"\\[()\[\]]", "", _TEXT_COMMAND.sub(r"\1", text)).split())
    text = text.lstrip(" #*:$").rstrip(" *.,:$")
    while len(text) > 1 and text[0] + text[-1] in ('""', "''", "``", "“”", "__"):
        text = text[1:-1]
    return text


def with_expanded_powers(text: str) -> str:
    r"""Write 1.5e3 and 1.5 \times 10^3 as 1500, and a typographic minus sign as a hyphen."""

    def expand(found: re.Match[str]) -> str:
        digits, *exponents = found.groups(default="")
        mantissa = digits.replace(",", "") or "1"
        return f"{Decimal(mantissa + 'e' + ''.join(exponents)):f}"

    text = text.replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-").replace("π", "\\pi ")
    text = re.sub(r"\\mathrm\s*\{([^{}]*)\}", r"\1", text)  # math-verify leaves its brace open
    text = re.sub(r"√\s*(\w+)", r"\\sqrt{\1}", text)
    text = re.sub(r"[⁻⁰¹²³⁴-⁹]+", lambda found: "^" + found[0].translate(_SUPERSCRIPTS), text)
    return _POWER.sub(expand, text)


def plain_number(text: str) -> Decimal | None:
    """Return the value of a text that is a number and nothing else, apart from a currency or percent sign."""
    found = _NUMBER.fullmatch(clean(_simplified(clean(text)).removesuffix("%")))
    return _value(found) if found and not found[2] else None


def number_in(answer: str) -> Decimal | None:
    r"""Return the number of an answer: the first one, after the last equals sign.

    Returns None if another one competes, or if a formula precedes it, as in `x \geq 3`.
    """
    text = _simplified(answer)
    last = re.split(r"=|≈|\\approx", text)[-1]
    found = [*_NUMBER.finditer(last)] or [*_NUMBER.finditer(text)]
    if not found or re.search(r"\\[a-zA-Z]|[<>±≤≥]", found[0].string[: found[0].start()]):
        return None
    between = found[0].string[found[0].end() : found[1].start()] if len(found) > 1 else ""
    return None if _RIVAL.fullmatch(between) else _value(found[0])


def last_number(text: str) -> Decimal | None:
    """Return the number after "the answer is", else the last number of a text."""
    for answer in anchored(text):
        if (number := number_in(answer)) is not None:
            return number
    numbers = [*_NUMBER.finditer(_simplified(text))]
    return _value(numbers[-1]) if numbers else None


def _value(number: re.Match[str]) -> Decimal | None:
    numerator, denominator = (Decimal(part.replace(",", "")) if part else None for part in number.groups())
    if numerator is None or denominator is None:
        return numerator
    return numerator / denominator if denominator else None


def _simplified(text: str) -> str:
    """Remove what LaTeX, Markdown and currencies add to numbers."""
    text = with_expanded_powers(_TEXT_COMMAND.sub(r" \1 ", text)).replace("{,}", ",")
    text = re.sub(r"\\[,!; ]|\*\*|\^\{?\\circ\}?", "", _FRACTION.sub(r"\1/\2", text)).replace("\\%", "%")
    return re.sub(r"\\?[$€£¥₹]", " ", re.sub(r"(?<!\w)-\s?\\?[$€£¥₹]", "-", text))


def letter_in(answers: Sequence[str], text: str = "") -> str | None:
    """Return the letter of a multiple choice in an answer, None if two compete; without any, the one in a text."""
    for answer in map(clean, answers):
        if options := [*re.finditer(_LETTER_IN_ANSWER, answer)]:
            letters = [(one[1] or one[2] or one[3]).upper() for one in options]
            has_rival = len(set(letters)) > 1 and _RIVAL.fullmatch(answer[options[0].end() : options[1].start()])
            return None if has_rival else letters[0]
    for line in _last_and_first_line(text):
        if found := re.match(r"\(?([A-J])\)?(?:[.):,]|$)|([a-j])$", line):
            return (found[1] or found[2]).upper()
    return next(reversed(re.findall(_LETTER_IN_TEXT, text)), None)


def word_in(words: str, answers: Sequence[str], text: str = "") -> str | None:
    """Return which of `words`, such as `yes|no`, an answer gives; without any, with which a text ends or begins."""
    last, first = _last_and_first_line(text)
    attempts = [*((re.search, answer) for answer in answers), (re.fullmatch, last), (re.match, first), (re.match, last)]
    found = (find(rf"\b(?:{words})\b", part, re.IGNORECASE) for find, part in attempts)
    return next((one[0].lower() for one in found if one), None)


def _last_and_first_line(text: str) -> tuple[str, str]:
    lines = [clean(line) for line in text.splitlines() if line.strip()] or [""]
    return lines[-1], lines[0]


def is_formula(text: str) -> bool:
    """Whether a text is mathematics that math-verify can compare, without words, and no date or time."""
    text = clean(text)
    if re.fullmatch(r"\d+(?:[-/:.]\d+){2,}|\d{1,2}:\d{2}|[A-Za-z]+[A-Za-z0-9]+", text):
        return False  # as a formula, 2024-01-05 is 2018, and CO2 a product
    has_words = re.search(r"[^\W\d_]{3}|(?<!\S)[^\W\d_]{2}(?!\S)", _NOT_WORDS.sub(" ", AND.sub(",", text)))
    return not has_words and re.search(r"[\d\\=^+*/<>∞π√]|^[^\W\d_]$", text) is not None
