"""Numbers outside of their meaningful range."""

from __future__ import annotations

from collections.abc import Iterator

from hf_sched.check.finding import Finding
from hf_sched.check.subject import Subject
from hf_sched.schedules.validation import ArgumentError, Number, Reader, Whole

_NOT_NEGATIVE = Number(0)
_POSITIVE = Number(0, above_low=True)
_SHARE = Number(0, 1)
_COUNT = Whole(1)
BOUNDS: dict[str, Reader] = {
    **dict.fromkeys(
        ("learning_rate", "num_train_epochs", "warmup_steps", "logging_steps", "eval_steps"), _NOT_NEGATIVE
    ),
    **dict.fromkeys(("weight_decay", "adam_epsilon", "max_grad_norm"), _NOT_NEGATIVE),
    **dict.fromkeys(("save_steps", "temperature"), _POSITIVE),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "label_smoothing_factor", "lora_dropout"), _SHARE),
    **dict.fromkeys(("top_p", "vllm_gpu_memory_utilization"), Number(0, 1, above_low=True)),
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), _COUNT),
    **dict.fromkeys(("gradient_accumulation_steps", "eval_accumulation_steps", "torch_empty_cache_steps"), _COUNT),
    **dict.fromkeys(("max_length", "max_completion_length", "vllm_tensor_parallel_size", "lora_r"), _COUNT),
    **dict.fromkeys(
        ("num_generations_eval", "num_iterations", "steps_per_generation", "generation_batch_size"), _COUNT
    ),
    "num_generations": Whole(2),
    "dataloader_num_workers": Whole(),
}
# Below 1 a share of the run, above 1 a number of steps.
_STEPS_OR_SHARE = {"logging_steps": "logging_strategy", "eval_steps": "eval_strategy", "save_steps": "save_strategy"}


def check_bounds(subject: Subject) -> Iterator[Finding]:
    """Numbers out of range. Values of the wrong type are left to `values.py`."""
    for key, reader in BOUNDS.items():
        has_type = (subject.whole if isinstance(reader, Whole) else subject.number)(key) is not None
        if key in subject.given and key in subject.arguments and has_type:
            try:
                reader(key, subject.given[key])
            except ArgumentError as error:
                yield subject.rejected(error)
    yield from _check_learning_rate(subject)
    yield from _check_steps(subject)


def _check_learning_rate(subject: Subject) -> Iterator[Finding]:
    rate = subject.number("learning_rate") if "learning_rate" in subject.given else None
    if rate == 0:
        yield subject.warning("learning_rate", "is 0, so nothing is learned: write, for example, 2.0e-5")
    elif rate is not None and rate > 1:
        yield subject.warning("learning_rate", f"is {rate:g}, above 1: write, for example, 2.0e-5")


def _check_steps(subject: Subject) -> Iterator[Finding]:
    for key, strategy in _STEPS_OR_SHARE.items():
        number = subject.number(key)
        is_odd = number is not None and number > 1 and not number.is_integer()
        if is_odd and key in subject.given and subject.text(strategy) == "steps":
            rule = "must be a whole number of steps, or a share of the run below 1"
            yield subject.error(key, f"{rule}, received {number:g}")
    if subject.number("logging_steps") == 0 and subject.text("logging_strategy") == "steps":
        yield subject.error("logging_steps", 'must be above 0: write logging_strategy: "no" to log nothing')
    warmup = subject.number("warmup_steps")
    if warmup is not None and warmup > 1 and not warmup.is_integer():
        remedy = "write a whole number, or a share of the run below 1"
        yield subject.warning("warmup_steps", f"is {warmup:g}, and the Trainer uses {int(warmup)}: {remedy}")
    if subject.number("max_steps") == 0:
        remedy = "leave it out, or write the optimizer steps of the run"
        yield subject.warning("max_steps", f"is 0, which has no effect: {remedy}")
