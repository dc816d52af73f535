"""Parameter groups by name: other peaks and schedules for some parameters of a model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_sched.scheduler.group_schedule import OWN_SCHEDULE
from hf_sched.schedules import schedule_text
from hf_sched.schedules.validation import MAPPING, ArgumentError, Number, unknown_argument

if TYPE_CHECKING:
    from torch import nn

DEFAULT = "default"
"""The name of the groups that no pattern matches."""
_RANGE = re.compile(r"\((\d+)-(\d+)\)")
_LAYER = re.compile(r"^(.*?)(?<![^.])(\d+)\.")
_LORA_B = re.compile(r"\.lora_(embedding_)?B\.")
_POSITIVE = Number(0, above_low=True)


class Rate(NamedTuple):
    """A learning rate (`2e-5`), or a multiple of the run's (`"0.1x"`)."""

    number: float
    is_multiple: bool

    @classmethod
    def read(cls, name: str, value: object) -> Rate:
        """Read a number, or a text that ends in `x`; `name` is the argument to blame."""
        text = value.strip() if isinstance(value, str) else ""
        try:
            return cls(Number(0)(name, text.removesuffix("x") or value), text.endswith("x"))
        except ArgumentError:
            allowed = 'a learning rate (2e-5) or a multiple of the run\'s ("0.1x")'
            raise ArgumentError(name, allowed, value) from None

    def at(self, learning_rate: float) -> float:
        """The peak in a run with this learning rate."""
        return self.number * learning_rate if self.is_multiple else self.number


@dataclass(frozen=True)
class GroupRule:
    """What a pattern of `lr_groups` sets for the parameters that it matches."""

    pattern: str
    regex: re.Pattern[str]
    """The pattern for whole parts of a name between its dots, with ranges of numbers spelled out."""
    rate: Rate
    schedule: str | None
    """The text of their own schedule."""

    @classmethod
    def read(cls, pattern: str, value: object) -> GroupRule:
        """Read one entry of `lr_groups`."""
        name = f"lr_groups.{pattern}"
        given: Mapping[Any, Any] = value if isinstance(value, Mapping) else {"lr": value}
        for key in given.keys() - {"lr", "schedule"}:
            raise unknown_argument(f"{name}.{key}", given[key], ("lr", "schedule"), "a parameter group")
        written = _RANGE.sub(lambda m: f"(?:{'|'.join(map(str, range(int(m[1]), int(m[2]) + 1)))})", pattern)
        try:
            regex = re.compile(rf"(?:^|\.)(?:{written})(?:\.|$)")
        except re.error as error:
            allowed = "parts of names (lm_head), a range (layers.(0-7)) or a regular expression"
            raise ArgumentError("lr_groups", allowed, pattern, str(error)) from None
        schedule = given.get("schedule")
        own = None if schedule is None else schedule_text.check(name, schedule)
        return cls(pattern, regex, Rate.read(name, given.get("lr", "1x")), own)


def read_rules(lr_groups: object) -> tuple[GroupRule, ...]:
    """Read `lr_groups`: peaks, multiples, or mappings of `lr` and `schedule`, by pattern.

    Raises:
        ArgumentError: It is no mapping, or an entry is wrong.
    """
    return tuple(GroupRule.read(str(key), value) for key, value in MAPPING("lr_groups", lr_groups or {}).items())


def param_groups(
    model: nn.Module,
    lr_groups: Mapping[str, Any] | None = None,
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    decay_per_layer: float | None = None,
    loraplus_lr_ratio: float | None = None,
    muon_learning_rate: float | str | None = None,
) -> list[dict[str, Any]]:
    """Divide the trainable parameters of a model into named groups, each with its own peak.

    Args:
        model: The model.
        lr_groups: Patterns, each with a learning rate (`2e-5`), a multiple of `learning_rate` (`"0.1x"`), or a mapping
            of `lr` and `schedule` (a schedule of hf_sched as text). A pattern is a regular expression for whole parts
            of a parameter's name between its dots (`lm_head`, `layers.(0-7)`). It sets exactly the peak that it states;
            the following arguments apply to the other parameters.
        learning_rate: The peak of all other parameters.
        weight_decay: The weight decay; 0 for the parameters that the Trainer does not decay: biases and norms.
        decay_per_layer: Layer `i` of `L` has the peak `learning_rate * decay_per_layer ** (L - 1 - i)`, and what comes
            before the layers (embeddings) that of a layer -1.
        loraplus_lr_ratio: LoRA+: the multiple of the learning rate for the B matrices of LoRA (Hayou et al. 2024,
            arXiv 2402.12354).
        muon_learning_rate: The peak of the matrices that Muon trains, or a multiple; None for no Muon.

    Returns:
        Groups for an optimizer, with the keys `params`, `lr`, `weight_decay` and `name`; `lr_schedule` if a group has
        its own schedule, and `use_muon` with Muon. The first group has the peak `learning_rate` if any has it.

    Raises:
        ArgumentError: A pattern matches no trainable parameter, two patterns match the same one, or the model has no
            numbered layers or no LoRA.

    Examples:
        >>> groups = hf_sched.param_groups(model, {"lm_head": "0.1x"}, learning_rate=2e-5, weight_decay=0.01)
        >>> trainer = Trainer(model, args, optimizers=(torch.optim.AdamW(groups), None), train_dataset=data)
    """
    from transformers import Trainer

    names = [name for name, _ in model.named_parameters()]
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    rules = _rules_by_name(read_rules(lr_groups), trainable, names)
    layers = _layer_factors(names, decay_per_layer)
    ratio = 1.0 if loraplus_lr_ratio is None else _POSITIVE("loraplus_lr_ratio", loraplus_lr_ratio)
    lora_b = {name for name in trainable if _LORA_B.search(name)} if loraplus_lr_ratio is not None else set()
    if loraplus_lr_ratio is not None and not lora_b:
        lacks = "needs trainable B matrices of LoRA (`lora_B`), which the model does not have"
        raise ArgumentError("loraplus_lr_ratio", received=loraplus_lr_ratio, rule=lacks, hint="set `use_peft: true`")
    muon = _hidden_matrices(model) if muon_learning_rate is not None else set()
    muon_peak = Rate.read("muon_learning_rate", muon_learning_rate or "1x").at(learning_rate)
    decayed = {*Trainer.get_decay_parameter_names(None, model)}  # a method that does not use the Trainer
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, parameter in trainable.items():
        is_muon, is_b, rule = id(parameter) in muon, name in lora_b, rules.get(name)
        peak = muon_peak if is_muon else learning_rate
        layer, factor = ("", 1.0) if rule else layers.get(name, ("", 1.0))
        labels = [rule.pattern] if rule else [layer, "lora_B" * is_b]
        group: dict[str, Any] = {
            "lr": rule.rate.at(peak) if rule else peak * factor * (ratio if is_b else 1.0),
            "weight_decay": weight_decay if name in decayed else 0.0,
            "name": ".".join(filter(None, [*labels, "muon" * is_muon])) or DEFAULT,
            "params": [],
        }
        group |= {OWN_SCHEDULE: rule.schedule} if rule and rule.schedule else {}
        group |= {"use_muon": is_muon} if muon_learning_rate is not None else {}
        # The Trainer logs the first group, so what has the run's learning rate comes first.
        order = (bool(rule), is_b, is_muon, -factor, bool(layer), name not in decayed)
        groups.setdefault((order, group["name"]), group)["params"].append(parameter)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])]


def _rules_by_name(rules: Iterable[GroupRule], trainable: Iterable[str], names: Iterable[str]) -> dict[str, GroupRule]:
    """The rule of each matched parameter."""
    found: dict[str, GroupRule] = {}
    for rule in rules:
        matched = [name for name in trainable if rule.regex.search(name)]
        if not matched:
            frozen = sum(bool(rule.regex.search(name)) for name in names)
            why = f"only frozen parameters ({frozen})" if frozen else "no parameter"
            hint = f"the trainable parameters have these parts: {', '.join(_parts(trainable))}"
            raise ArgumentError("lr_groups", rule=f"has the pattern {rule.pattern!r}, which matches {why}", hint=hint)
        if twice := [name for name in matched if name in found]:
            other = found[twice[0]].pattern
            both = f"has the patterns {other!r} and {rule.pattern!r}, which both match {len(twice)} parameters"
            hint = f"such as {', '.join(twice[:3])}: let each parameter match one pattern at most"
            raise ArgumentError("lr_groups", rule=both, hint=hint)
        found |= dict.fromkeys(matched, rule)
    return found


def _parts(names: Iterable[str]) -> list[str]:
    """The parts of names between dots, with the numbers of a list as a range."""
    numbers: dict[str, list[int]] = {}
    parts: dict[str, None] = {}
    for name in names:
        words = name.split(".")
        for before, word in zip(["", *words], words, strict=False):
            if word.isdigit():
                numbers.setdefault(before, []).append(int(word))
            else:
                parts[word] = None
    ranges = [f"{before}.({min(found)}-{max(found)})" for before, found in numbers.items()]
    return [*ranges, *(part for part in parts if part not in numbers)]


def _layer_factors(names: list[str], decay: float | None) -> dict[str, tuple[str, float]]:
    """The label of each parameter in a layer or before all layers, and the factor of its peak."""
    if decay is None:
        return {}
    decay = Number(0, 1, above_low=True)("decay_per_layer", decay)
    places = {name: (match[1], int(match[2])) for name in names if (match := _LAYER.match(name))}
    if not places:
        raise ArgumentError("decay_per_layer", received=decay, rule="needs a model with numbered layers (`layers.0`)")
    # Other numbered parts, such as those of a classifier, have fewer members.
    (layers, _), *_ = Counter(layers for layers, _ in {*places.values()}).most_common(1)
    numbers = {name: number for name, (place, number) in places.items() if place == layers}
    last, before = max(numbers.values()), takewhile(lambda name: name not in numbers, names)
    factors = dict.fromkeys(before, ("embeddings", decay ** (last + 1)))
    return factors | {name: (f"layer_{number}", decay ** (last - number)) for name, number in numbers.items()}


def _hidden_matrices(model: nn.Module) -> set[int]:
    """The ids of the parameters for Muon: all matrices except embeddings and the output head."""
    from torch.nn import Embedding

    head = getattr(model, "get_output_embeddings", lambda: None)()
    others = [*(one for one in model.modules() if isinstance(one, Embedding)), *filter(None, [head])]
    outside = {id(parameter) for module in others for parameter in module.parameters()}
    return {id(parameter) for parameter in model.parameters() if parameter.ndim == 2} - outside
