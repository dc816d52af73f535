"""What a recipe is asked to do: its YAML file and command line, read strictly and checked before a model is loaded."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import yaml
from trl import TrlParser

import hf_sched

# Folders that shipped configurations begin with, and what makes them.
_MADE_BY = {
    "runs/demo/task": "python -m hf_sched.finetune.demo.sorting_task",
    "runs/smollm2/model": "python -m hf_sched.finetune.demo.smollm2",
}


def parse(*dataclass_types: type, args: Sequence[str] | None = None) -> tuple[Any, ...]:
    """The recipe's dataclasses, from `--config FILE.yaml` and the flags behind it, which win.

    What does not fit ends the program with one line that says what to write instead, and exit status 2.
    """
    parser = TrlParser(dataclass_types)
    parser.allow_abbrev = False  # `--learning_rat 1` is a slip, not a learning rate
    try:
        *parsed, unknown = parser.parse_args_and_config(args=args, return_remaining_strings=True)
        check_no_unknown_arguments(
            unknown, [field.name for cls in dataclass_types for field in dataclasses.fields(cls)]
        )
        for part in parsed:
            _check_whole_numbers(part)
            _check_paths(part)
            _check_schedule(part)
    except FileNotFoundError as error:
        stop(ValueError(f"`--config` must be a YAML file that exists, received {error.filename!r}"))
    except yaml.YAMLError as error:
        stop(ValueError(f"`--config` must be a YAML file, a `key: value` a line: {' '.join(str(error).split())}"))
    except json.JSONDecodeError as error:
        stop(ValueError(f'{error.doc!r} must be JSON, names and texts in double quotes ("floor_ratio"): {error}'))
    except (ValueError, TypeError) as error:
        stop(_explained(error))
    return tuple(parsed)


def _explained(error: Exception) -> Exception:
    """An error of TRL's that names an argument which nobody has given, in terms of those that were."""
    if "generation_batch_size" not in str(error):
        return error
    return ValueError(
        f"{str(error).rstrip('.')}: it is `per_device_train_batch_size` times the processes times "
        "`gradient_accumulation_steps`; change one of them, or `num_generations`"
    )


def stop(error: Exception) -> NoReturn:
    """End the program with an error's message alone: the traceback of a wrong argument helps nobody."""
    print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
    raise SystemExit(2) from error


def check_no_unknown_arguments(words: Sequence[str], known: Sequence[str]) -> None:
    """Raise a ValueError for keys and flags that nothing takes; `words` are what the parser left over."""
    flags = [word for word in words if word.startswith("--")]
    if not words:
        return
    complaints = []
    for flag in flags or words:
        near = get_close_matches(flag.lstrip("-").replace("-", "_"), known, n=1)
        complaints.append(f"`{flag.lstrip('-')}`" + (f" (did you mean `{near[0]}`?)" if near else ""))
    raise ValueError(f"the recipe has no argument {', '.join(complaints)}: correct it or leave it out")


def _check_whole_numbers(part: Any) -> None:
    # YAML is weakly typed and argparse converts only text, so `max_steps: 1.5` would get through to the training loop.
    for field in dataclasses.fields(part):
        value = getattr(part, field.name, None)
        if (
            field.type in (int, int | None)
            and value is not None
            and (isinstance(value, bool) or not isinstance(value, int))
        ):
            raise ValueError(f"`{field.name}` must be a whole number, received {value!r}")


def _check_paths(part: Any) -> None:
    for name in ("model_name_or_path", "dataset_name"):
        value = getattr(part, name, None)
        # A hub name has one slash at most; anything longer, or that starts like a path, is one.
        if (
            value
            and (value.count("/") > 1 or value.startswith((".", "/", "~")))
            and not Path(value).expanduser().exists()
        ):
            raise ValueError(
                f"`{name}` must be a hub name or a path that exists, received {value!r}"
                + next((f"; `{made}` makes it" for folder, made in _MADE_BY.items() if value.startswith(folder)), "")
            )


def _check_schedule(part: Any) -> None:
    name = str(getattr(getattr(part, "lr_scheduler_type", None), "value", ""))
    if name in hf_sched.available() and part.max_steps > 0:
        kwargs = {key: value for key, value in (part.lr_scheduler_kwargs or {}).items() if key != "on_resume"}
        warmup_steps = part.get_warmup_steps(part.max_steps)
        # How many steps an epoch has is known only when the data is there.
        with suppress(hf_sched.EpochsUnknown):
            schedule = hf_sched.build(name, num_training_steps=part.max_steps, num_warmup_steps=warmup_steps, **kwargs)
            schedule.floor(part.learning_rate)
