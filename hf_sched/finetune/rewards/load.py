"""From what a recipe's YAML names to the functions that TRL calls."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from hf_sched.finetune.rewards.safe_reward import GuardedReward, Reward

# Functions of one completion and, behind it, of the columns of its row; what is keyword-only are parameters.
OWN = {
    "exact_answer": "hf_sched.finetune.rewards.answers",
    "final_number": "hf_sched.finetune.rewards.answers",
    "accuracy": "hf_sched.finetune.rewards.answers",
    "answer_format": "hf_sched.finetune.rewards.formats",
    "tag_count": "hf_sched.finetune.rewards.formats",
}
TIME_LIMIT = 5.0  # seconds for a completion
_NOT_PARAMETERS = ("name", "as", "weight", "time_limit")


def load_rewards(
    named: Sequence[Any] | str | None, given_weights: list[float] | None = None
) -> tuple[list[Reward | str], list[float] | None]:
    """The rewards that are named, in order, and their weights.

    Args:
        named: Each a name, or a mapping (or one as text) of `name`, of the function's parameters and, where wanted,
            `weight` (1 by default), `as` (what it is logged as) and `time_limit` (seconds for a completion).
        given_weights: `reward_weights`, TRL's own way to give them.

    Returns:
        tuple: Functions as TRL calls them, paths of reward models as they are; and the weights, None where nobody gave
        one.

    Raises:
        ValueError: There is none by such a name, a parameter does not fit, or none is named at all.
    """
    if not named:
        raise ValueError(f"`reward_funcs` must name at least one reward, for example [{', '.join(OWN)}]")
    settings = [_settings(item) for item in ([named] if isinstance(named, (str, Mapping)) else named)]
    rewards: list[Reward | str] = []
    for item in settings:
        rewards.append(_load(item, taken=[_name(reward) for reward in rewards]))
    if not any("weight" in item for item in settings):
        return rewards, given_weights
    if given_weights is not None:
        raise ValueError(f"give weights in `reward_funcs` or as `reward_weights`, not both: received {given_weights}")
    return rewards, [_number(item, "weight", 1.0) for item in settings]


def check_reward_columns(rewards: Sequence[Reward | str], columns: Sequence[str]) -> None:
    """Raise a ValueError if the data lack a column that a reward of ours needs."""
    for reward in rewards:
        for column in (isinstance(reward, GuardedReward) and reward.columns) or ():
            if column not in columns:
                raise ValueError(
                    f"the reward {_name(reward)!r} needs a column `{column}` in the data, which have "
                    f"{', '.join(columns)}"
                )


def _settings(item: Any) -> dict[str, Any]:
    if isinstance(item, str) and item.lstrip().startswith("{"):
        item = yaml.safe_load(item)
    if isinstance(item, str):
        return {"name": item}
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
        raise ValueError(f"`reward_funcs` must hold names, or mappings with a `name`, received {item!r}")
    return dict(item)


def _load(settings: dict[str, Any], taken: Sequence[str]) -> Reward | str:
    name = str(settings["name"])
    parameters = {key: value for key, value in settings.items() if key not in _NOT_PARAMETERS}
    if "/" in name:  # a reward model: TRL loads it
        if parameters:
            raise ValueError(f"`reward_funcs`: the reward model {name!r} takes no {', '.join(parameters)}")
        return name
    found: Reward = _find(name)
    logged = str(settings.get("as") or name.rpartition(".")[2])
    number = sum(other == logged or other.startswith(f"{logged}_") for other in taken) + 1
    logged = logged if logged not in taken else f"{logged}_{number}"
    if inspect.iscoroutinefunction(found):
        return found  # TRL awaits it, for all completions at once
    limit = _number(settings, "time_limit", TIME_LIMIT)
    if name in OWN:
        columns, allowed = _signature(found)
        _refuse_unknown(name, parameters, allowed)
        return GuardedReward(logged, found, limit, parameters, columns)
    if inspect.isclass(found) or _is_factory(found):
        return GuardedReward(logged, _make(name, found, parameters), limit)
    _refuse_unknown(name, parameters, _accepted(found))
    return GuardedReward(logged, found, limit, parameters)


def _name(reward: Reward | str) -> str:
    return str(getattr(reward, "__name__", reward))


def _find(name: str) -> Any:
    if name in OWN:
        return getattr(importlib.import_module(OWN[name]), name)
    module_name, _, attribute = name.rpartition(".")
    candidates = [attribute]
    if not module_name:
        module_name = "trl.rewards"
        candidates = [attribute, f"{attribute}_reward", f"get_{attribute}", f"get_{attribute}_reward"]
    elif str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a file of the user's own, beside where the recipe was started
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise _unknown(name, error) from None
    for candidate in candidates:
        found = getattr(module, candidate, None)
        if callable(found):
            return found
    raise _unknown(name, f"{module_name} has no function {attribute}")


def _unknown(name: str, why: object) -> ValueError:
    near = get_close_matches(name, OWN, n=1)
    return ValueError(
        f"`reward_funcs` must be names of rewards ({', '.join(OWN)}), names from trl.rewards, or dotted paths to a "
        f"function (my_rewards.my_function), received {name!r}{f' (did you mean {near[0]!r}?)' if near else ''}: {why}"
    )


def _is_factory(found: Callable[..., Any]) -> bool:
    """Whether it makes a reward from parameters, as `trl.rewards.get_repetition_penalty_reward` does."""
    return getattr(found, "__name__", "").startswith("get_") and "completions" not in (_accepted(found) or ())


def _make(name: str, factory: Any, parameters: dict[str, Any]) -> Any:
    _refuse_unknown(name, parameters, list(inspect.signature(factory).parameters))
    try:
        return factory(**parameters)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`reward_funcs`: {name!r} cannot be made from {parameters}: {error}") from None


def _signature(function: Callable[..., Any]) -> tuple[list[str], list[str]]:
    """The columns that a function of ours takes behind the completion, and its parameters."""
    _, *others = inspect.signature(function).parameters.values()
    parameters = [one.name for one in others if one.kind is one.KEYWORD_ONLY]
    return [one.name for one in others if one.name not in parameters], parameters


def _accepted(function: Callable[..., Any]) -> list[str] | None:
    """The names a function takes; None if it takes any."""
    parameters = inspect.signature(function).parameters.values()
    return None if any(one.kind is one.VAR_KEYWORD for one in parameters) else [one.name for one in parameters]


def _refuse_unknown(name: str, parameters: dict[str, Any], allowed: Sequence[str] | None) -> None:
    for parameter in parameters if allowed is not None else ():
        if parameter not in (allowed or ()):
            takes = f"it takes {', '.join(allowed)}" if allowed else "it takes none"
            raise ValueError(f"`reward_funcs`: {name!r} has no parameter `{parameter}`; {takes}")


def _number(settings: dict[str, Any], key: str, default: float) -> float:
    value = settings.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"`reward_funcs`: the `{key}` of {settings['name']!r} must be a number, received {value!r}")
    return float(value)
