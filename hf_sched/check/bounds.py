"""Numbers that make no sense: negative, zero or above one where that means nothing."""

from __future__ import annotations

from collections.abc import Iterator

from hf_sched.check.finding import Finding
from hf_sched.check.subject import Subject
from hf_sched.schedules.validation import Number, Whole

_POSITIVE = Number(0, above_low=True)
_SHARE = Number(0, 1, above_low=True)
_COUNT = Whole(1)

BOUNDS: dict[str, Number | Whole] = {
    "learning_rate": Number(0),
    "num_train_epochs": Number(0),
    "warmup_steps": Number(0),
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "eval_accumulation_steps": _COUNT,
    "weight_decay": Number(0),
    "adam_beta1": Number(0, 1),
    "adam_beta2": Number(0, 1),
    "adam_epsilon": Number(0),
    "max_grad_norm": Number(0),
    "label_smoothing_factor": Number(0, 1),
    "logging_steps": Number(0),
    "eval_steps": Number(0),
    "save_steps": _POSITIVE,
    "torch_empty_cache_steps": _COUNT,
    "dataloader_num_workers": Whole(),
    "max_length": _COUNT,
    "max_completion_length": _COUNT,
    "num_generations": Whole(2),
    "num_generations_eval": _COUNT,
    "num_iterations": _COUNT,
    "steps_per_generation": _COUNT,
    "generation_batch_size": _COUNT,
    "temperature": _POSITIVE,
    "top_p": _SHARE,
    "vllm_gpu_memory_utilization": _SHARE,
    "vllm_tensor_parallel_size": _COUNT,
    "lora_r": _COUNT,
    "lora_dropout": Number(0, 1),
}
# Below 1 a share of the run, above it a number of steps.
_STEPS_OR_SHARE = {"logging_steps": "logging_strategy", "eval_steps": "eval_strategy", "save_steps": "save_strategy"}


def check_bounds(subject: Subject) -> Iterator[Finding]:
    """Numbers outside what means something; those of a wrong type are left to `values.py`."""
    for key, reader in BOUNDS.items():
        if key in subject.given and key in subject.arguments and subject.number(key) is not None:
            try:
                reader(key, subject.number(key))
            except ValueError as error:
                if not (isinstance(reader, Whole) and subject.whole(key) is None):
                    yield subject.error(key, _after_the_name(error, key, subject))
    yield from _check_learning_rate(subject)
    yield from _check_steps(subject)


def _check_learning_rate(subject: Subject) -> Iterator[Finding]:
    rate = subject.number("learning_rate")
    if "learning_rate" not in subject.given or rate is None:
        return
    if rate == 0:
        yield subject.warning("learning_rate", "is 0: nothing is learned; write, say, 2.0e-5")
    elif rate > 1:
        yield subject.warning("learning_rate", f"is {rate:g}, above 1: write, say, 2.0e-5 if an exponent is missing")


def _check_steps(subject: Subject) -> Iterator[Finding]:
    for key, strategy in _STEPS_OR_SHARE.items():
        number = subject.number(key)
        odd = number is not None and number > 1 and not number.is_integer()
        if odd and key in subject.given and subject.text(strategy) == "steps":
            yield subject.error(
                key, f"must be a whole number of steps, or a share of the run below 1, received {number:g}"
            )
    if subject.number("logging_steps") == 0 and subject.text("logging_strategy") == "steps":
        yield subject.error("logging_steps", 'must be above 0: write logging_strategy: "no" to log nothing')
    warmup = subject.number("warmup_steps")
    if warmup is not None and warmup > 1 and not warmup.is_integer():
        yield subject.warning(
            "warmup_steps",
            f"is {warmup:g}, of which the Trainer takes {int(warmup)}: write a whole number, or a share of the run "
            "below 1",
        )
    if subject.number("max_steps") == 0:
        yield subject.warning(
            "max_steps", "is 0, which counts as not given: leave it out, or write the optimizer steps of the run"
        )


def _after_the_name(error: ValueError, key: str, subject: Subject) -> str:
    number = subject.number(key)
    return str(error).removeprefix(f"`{key}` ").replace(f"received {number!r}", f"received {number:g}")
