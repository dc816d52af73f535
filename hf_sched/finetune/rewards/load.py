"""Loads the rewards named in a recipe's YAML as the functions that TRL calls."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hf_sched.finetune.rewards.answers import accuracy, exact_answer, final_number
from hf_sched.finetune.rewards.formats import answer_format, tag_count
from hf_sched.finetune.rewards.safe_reward import CONTRACT, Reward, SafeReward, for_trl
from hf_sched.schedules.validation import ArgumentError, suggest

# The rewards of this package: functions of one completion and of columns of its row. Their keyword-only arguments are
# the reward's parameters.
REWARDS: dict[str, Reward] = {
    function.__name__: function for function in (exact_answer, final_number, accuracy, answer_format, tag_count)
}
TIME_LIMIT = 30.0  # seconds per call
# What TRL passes to each reward in addition to the columns of the data.
_FROM_TRL = ("completions", "prompts", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
_NOT_PARAMETERS = ("name", "as", "weight", "time_limit")


def load_rewards(
    named: Sequence[Any] | str | None,
    weights: list[float] | None = None,
    argument: str = "reward_funcs",
    *,
    have_worked: bool = False,
) -> tuple[list[Reward | str], list[float] | None]:
    """Load rewards and their weights.

    Args:
        named: Names, or mappings (as a dict or as YAML) with `name`, the function's parameters and optionally `weight`
            (default 1), `as` (the name in logs) and `time_limit` (seconds per call, for a whole batch; default 30).
        weights: TRL's `reward_weights`, instead of `weight` in the mappings.
        argument: The user's name for `named` in error messages.
        have_worked: Whether the rewards scored batches before the run was interrupted.

    Returns:
        Functions as TRL calls them and unchanged paths of reward models, in order; and the weights, None if no weight
        is given.

    Raises:
        ArgumentError: No reward is named, a name is unknown, two have the same name in logs, a parameter does not fit,
            or a function has a wrong signature.

    Examples:
        >>> rewards, weights = load_rewards(["accuracy", {"name": "answer_format", "format": "boxed", "weight": 0.2}])
        >>> [reward.__name__ for reward in rewards], weights
        (['accuracy', 'answer_format'], [1.0, 0.2])
    """
    if not named:
        raise ArgumentError(argument, f"at least one reward, such as {', '.join(REWARDS)}", named)
    settings = [_settings(item, argument) for item in ([named] if isinstance(named, (str, Mapping)) else named)]
    rewards = [_load(item, argument, have_worked) for item in settings]
    names = [_name(reward).rpartition("/")[2] for reward in rewards]
    if repeated := [name for name in names if names.count(name) > 1]:
        rule = f"gives several rewards the name {repeated[0]!r}, under which they would be mixed up in logs"
        raise ArgumentError(argument, rule=rule, hint="set another name for one of them with `as`")
    if not any("weight" in item for item in settings):
        return rewards, weights
    if weights is not None:
        raise ArgumentError("reward_weights", f"omitted if `{argument}` holds weights", weights)
    return rewards, [_number(item, "weight", 1.0, argument) for item in settings]


def check_reward_columns(
    rewards: Sequence[Reward | str], columns: Sequence[str], argument: str = "reward_funcs"
) -> None:
    """Check that the data have the columns that the rewards need.

    Raises:
        ArgumentError: A column is missing.
    """
    for reward in rewards:
        for column in getattr(reward, "columns", ()):
            if column not in columns:
                rule = f"has the reward {_name(reward)!r}, which needs a column `{column}`"
                raise ArgumentError(argument, rule=rule, hint=f"the data have {', '.join(columns)}")


def _name(reward: Reward | str) -> str:
    return str(getattr(reward, "__name__", reward))


def _settings(item: Any, argument: str) -> dict[str, Any]:
    if isinstance(item, str):
        item = yaml.safe_load(item) if item.lstrip().startswith("{") else {"name": item}
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
        raise ArgumentError(argument, "names of rewards or mappings with a `name`", item)
    return dict(item)


def _load(settings: dict[str, Any], argument: str, has_worked: bool) -> Reward | str:
    name = str(settings["name"])
    parameters = {key: value for key, value in settings.items() if key not in _NOT_PARAMETERS}
    found = None if "/" in name else _find(name, argument)  # TRL loads reward models
    signature = inspect.signature(found).parameters if found else {}
    names = list(signature)
    keywords = [name for name, one in signature.items() if one.kind is one.KEYWORD_ONLY]
    # `trl.rewards.get_repetition_penalty_reward`, for example, makes a reward from parameters, as a class does.
    makes_reward = inspect.isclass(found) or (_name(found or "").startswith("get_") and "completions" not in names)
    takes_any = any(one.kind is one.VAR_KEYWORD for one in signature.values()) and not makes_reward
    allowed = keywords if name in REWARDS else names
    if not takes_any and (unknown := [parameter for parameter in parameters if parameter not in allowed]):
        rule = f"gives {name!r} the unknown parameter `{unknown[0]}`"
        raise ArgumentError(argument, rule=rule, hint=f"it takes {', '.join(allowed) or 'none'}")
    if found is None:
        return name
    if found is accuracy:
        importlib.import_module("math_verify")  # takes seconds, which would count for the time limit of a call
    if makes_reward:
        try:
            found, parameters = found(**parameters), {}
        except (TypeError, ValueError) as error:
            rule = f"gives {name!r} parameters that it rejects"
            raise ArgumentError(argument, rule=rule, received=parameters, hint=str(error)) from None
    is_single = name in REWARDS
    columns = names[1 : len(names) - len(keywords)] if is_single else _columns_of(found, name, parameters, argument)
    logged = str(settings.get("as") or name.rpartition(".")[2])
    time_limit = _number(settings, "time_limit", TIME_LIMIT, argument)
    reward = SafeReward(logged, found, time_limit, parameters, columns, is_single, has_worked)
    is_async = inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(type(found).__call__)
    return for_trl(reward) if is_async else reward


def _columns_of(function: Reward, name: str, given: Mapping[str, Any], argument: str) -> list[str]:
    """Return the columns that a function of a batch requires; raise an ArgumentError if TRL cannot call it."""
    signature = inspect.signature(function)
    kinds = {one.kind for one in signature.parameters.values()}
    required = [
        one.name
        for one in signature.parameters.values()
        if one.default is one.empty and one.kind is not one.VAR_KEYWORD and one.name not in (*_FROM_TRL, *given)
    ]
    is_called_by_name = inspect.Parameter.VAR_KEYWORD in kinds and inspect.Parameter.POSITIONAL_ONLY not in kinds
    if not is_called_by_name or {"completion", "prompt"} & set(required):
        raise ArgumentError(argument, CONTRACT, f"{name}{signature}")
    return required


def _find(name: str, argument: str) -> Reward:
    if name in REWARDS:
        return REWARDS[name]
    module_name, _, attribute = name.rpartition(".")
    candidates = [attribute]
    if not module_name:
        module_name = "trl.rewards"
        candidates += [f"{attribute}_reward", f"get_{attribute}", f"get_{attribute}_reward"]
    elif sys.path[0] != str(Path.cwd()):
        # The user's files are in the folder where the recipe was started, and win over others of the same name.
        sys.path.insert(0, str(Path.cwd()))
    reason = f"{module_name} has no function {attribute}"
    try:
        module = importlib.import_module(module_name)
        for candidate in candidates:
            if callable(found := getattr(module, candidate, None)):
                return found
    except Exception as error:  # a user's file may fail in any way
        reason = f"{type(error).__name__}: {error}"
    allowed = f"names of rewards ({', '.join(REWARDS)}), names from trl.rewards, or dotted paths to functions"
    raise ArgumentError(argument, allowed, name, hint=suggest(name, REWARDS) or reason)


def _number(settings: dict[str, Any], key: str, default: float, argument: str) -> float:
    value = settings.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentError(argument, rule=f"must give {settings['name']!r} a number as `{key}`", received=value)
    return float(value)
