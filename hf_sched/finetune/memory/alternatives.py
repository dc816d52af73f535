"""What would fit where a run does not: each change is estimated before it is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hf_sched.finetune.memory.estimate import Estimate, estimate, least
from hf_sched.finetune.memory.fake_model import HALVES
from hf_sched.finetune.memory.settings import Lora, Settings

_MOST = 4
_SHORTEST = 256
_SHARDED = {"ZeRO-2": "zero2.yaml", "ZeRO-3": "zero3.yaml", "FSDP2": "fsdp2.yaml"}


@dataclass(frozen=True)
class Alternative:
    """A change that makes a run fit."""

    text: str
    estimate: Estimate


def alternatives(settings: Settings, device_bytes: int) -> list[Alternative]:
    """Single changes after which the run fits, the least costly first; else the shortest row of them together."""
    found: list[Alternative] = []
    for kind in _CHANGES:
        changes = list(kind(settings))
        # Where the smallest is not enough, none before it is.
        if kind in (_smaller_batch, _shorter) and changes and not _fitting(*changes[-1], device_bytes):
            continue
        fitting = (_fitting(*change, device_bytes) for change in changes)
        if one := next(filter(None, fitting), None):
            found.append(one)
        if len(found) == _MOST:
            return found
    return found or _together(settings, device_bytes)


def _together(settings: Settings, device_bytes: int) -> list[Alternative]:
    texts: list[str] = []
    for kind in _CHANGES:
        # Of each kind the strongest, which is its last.
        for text, changed in list(kind(settings))[-1:]:
            texts.append(text)
            settings = changed
            if found := _fitting(" with ".join(texts), settings, device_bytes):
                return [found]
    return []


def _fitting(text: str, changed: Settings, device_bytes: int) -> Alternative | None:
    if least(changed, device_bytes) > device_bytes:  # which takes no pass to know
        return None
    after = estimate(changed, device_bytes)
    return Alternative(text, after) if after.total <= device_bytes else None


def _checkpointing(settings: Settings) -> Iterator[tuple[str, Settings]]:
    if not settings.checkpointing:
        yield "`gradient_checkpointing: true`", settings.but(checkpointing=True)


def _smaller_batch(settings: Settings) -> Iterator[tuple[str, Settings]]:
    batch, accumulation = settings.batch, settings.accumulation
    while batch > 1 and batch % 2 == 0:
        batch, accumulation = batch // 2, accumulation * 2
        text = f"`per_device_train_batch_size: {batch}` and `gradient_accumulation_steps: {accumulation}`"
        yield text, settings.but(batch=batch, accumulation=accumulation)


def _sleeping(settings: Settings) -> Iterator[tuple[str, Settings]]:
    if settings.vllm_share and not settings.vllm_sleeps:
        yield "`vllm_enable_sleep_mode: true`", settings.but(vllm_sleeps=True)


def _half_precision(settings: Settings) -> Iterator[tuple[str, Settings]]:
    if settings.on_gpu and settings.mixed not in HALVES:
        yield "`bf16: true`", settings.but(mixed="bf16")


def _sharding(settings: Settings) -> Iterator[tuple[str, Settings]]:
    spread = settings.spread
    if spread.processes > 1 and settings.on_gpu and not settings.bits:
        order = list(_SHARDED)
        for kind in order[order.index(spread.kind) + 1 if spread.kind in order else 0 :]:
            yield f"accelerate_configs/{_SHARDED[kind]}", settings.but(spread=replace(spread, kind=kind))


def _lora(settings: Settings) -> Iterator[tuple[str, Settings]]:
    if settings.lora is None:
        lora = Lora(target_modules="all-linear")
        yield "LoRA: `use_peft: true`, `lora_target_modules: all-linear`", settings.but(lora=lora)
        if settings.on_gpu and settings.dtype == "float32" and settings.mixed == "bf16":
            yield (
                "LoRA: `use_peft: true`, `lora_target_modules: all-linear`, `dtype: bfloat16`",
                settings.but(lora=lora, dtype="bfloat16"),
            )


def _shorter(settings: Settings) -> Iterator[tuple[str, Settings]]:
    changing, other = settings.completion or settings.length, settings.length - (settings.completion or settings.length)
    name = "max_completion_length" if settings.completion else "max_length"
    while changing // 2 >= _SHORTEST:
        changing //= 2
        completion = changing if settings.completion else 0
        yield f"`{name}: {changing}`", settings.but(length=other + changing, completion=completion)


_CHANGES = (_checkpointing, _smaller_batch, _sleeping, _half_precision, _sharding, _lora, _shorter)
