"""Puts the parts together: what is held all the time, and what comes on top at each moment of a step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from hf_sched.finetune.memory.fake_model import HALVES, build, layers_of, load_config, nbytes, trainable, weight_bytes
from hf_sched.finetune.memory.generation import generation_bytes
from hf_sched.finetune.memory.settings import Settings
from hf_sched.finetune.memory.states import States, states
from hf_sched.finetune.memory.step import trace_step

GIB = 2**30
# What is not counted on a GPU: the context, the libraries' work spaces, what the allocator cannot use. Not measured.
GPU_OVERHEAD = GIB
BUCKET = "DeepSpeed's bucket"
BUCKET_SIZE = 500_000_000  # elements: reduce_bucket_size
MAX_LIVE = 1_000_000_000  # parameters that ZeRO-3 keeps gathered at most (stage3_max_live_parameters)
PREFETCHED = 50_000_000  # those that it gathers at a time, into memory of their own (stage3_prefetch_bucket_size)

ASSUMPTIONS = (
    "every batch has its full number of rows, and each the longest sample's tokens",
    "activations: a step on fake tensors, operation by operation; attention by a kernel that keeps no scores "
    "(sdpa or flash), with a mask where rows are padded",
    "the optimizer has stepped once; between steps gradients are freed",
    "DDP: buckets of the gradients' size (gradient_as_bucket_view is off in Accelerate)",
    "ZeRO (1910.02054): bf16 weights and gradients, float32 master weights and states; DeepSpeed's default bucket, and "
    "a copy of what is in it while that is reduced; under ZeRO-3 up to 1e9 parameters stay gathered, and 5e7 are there "
    "twice while they are gathered",
    "FSDP2: two blocks are gathered at a time, embedding and head throughout",
    f"a GPU: {GPU_OVERHEAD / GIB:g} GiB for context, libraries and fragmentation, which was not measured",
)


@dataclass(frozen=True)
class Moment:
    """A moment of a step."""

    name: str
    parts: dict[str, int]
    """Bytes by what they are for."""

    @property
    def total(self) -> int:
        """Bytes altogether."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Estimate:
    """The memory of a process on its device."""

    settings: Settings
    parameters: int
    trained: int
    """How many of the parameters the optimizer is given."""
    held: dict[str, int]
    """What is held all the time, in bytes."""
    moments: tuple[Moment, ...]

    @property
    def peak(self) -> Moment:
        """The moment that takes most."""
        return max(self.moments, key=lambda moment: moment.total)

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return self.peak.total


PASSES, REDUCTION, STEP = "forward and backward pass", "gradients reduced", "optimizer step"
GENERATION = "generation"


@dataclass(frozen=True)
class _Model:
    """What is known of the whole model."""

    weights: int
    parameters: int
    trained: int
    trained_bytes: int
    in_blocks: int
    """Parameters of all blocks together."""
    largest_block: int
    """Those of the largest."""
    shapes: tuple[tuple[tuple[int, ...], torch.dtype], ...]
    element: int
    """Bytes of an element of the type that it computes in."""


@lru_cache(maxsize=64)
def _look_at(settings: Settings) -> _Model:
    config = load_config(settings)
    model = build(settings, config)
    given = trainable(model)
    blocks = [_numel(block) for block in layers_of(model)]
    return _Model(
        weights=weight_bytes(model, settings),
        parameters=_numel(model),
        trained=sum(one.numel() for one in given),
        trained_bytes=nbytes(given),
        in_blocks=sum(blocks),
        largest_block=max(blocks, default=0),
        shapes=tuple((tuple(one.shape), one.dtype) for one in given),
        element=next(model.parameters()).element_size(),
    )


def estimate(settings: Settings, device_bytes: int | None = None) -> Estimate:
    """The memory that a run takes on each device.

    Args:
        settings: The run.
        device_bytes: The memory of a GPU, of which vLLM takes its share; None where it does not matter.

    Raises:
        ValueError: The optimizer's memory is not known, or vLLM's share is one of a GPU that is not.
    """
    model = _look_at(settings.as_built().but(batch=1, length=1, completion=0, generated=0))
    held = _held(settings, model, device_bytes)
    moments = [Moment(PASSES, held | _passes(settings, model)), Moment(STEP, held | _stepping(settings, model))]
    if settings.spread.kind.startswith("ZeRO"):
        moments.insert(1, Moment(REDUCTION, held | _reducing(settings, model)))
    if settings.generated:
        moments.append(Moment(GENERATION, held | _generating(settings, model)))
    elif settings.vllm_share and settings.vllm_sleeps:
        moments.append(Moment(GENERATION, held | {"vLLM": _vllm(settings, device_bytes)}))
    return Estimate(settings, model.parameters, model.trained, held, tuple(moments))


def least(settings: Settings, device_bytes: int | None = None) -> int:
    """Bytes that no smaller batch and no shorter sample would change: what is held, and the gradients at the step."""
    model = _look_at(settings.as_built().but(batch=1, length=1, completion=0, generated=0))
    held = _held(settings, model, device_bytes) | {"gradients": _gradients(settings, model)}
    return sum(size for name, size in held.items() if name != BUCKET)  # which a DeepSpeed file can make smaller


def _held(settings: Settings, model: _Model, device_bytes: int | None) -> dict[str, int]:
    spread, share = settings.spread, settings.spread.processes
    kept, master = _optimizer(settings, model)
    weights = model.weights
    if spread.kind == "FSDP2":
        # Trained weights are kept in float32 where the computation is in half precision.
        weights += model.trained * 4 - model.trained_bytes if settings.mixed in HALVES else 0
    weights = 0 if spread.offload_weights else weights // share if spread.shards_weights else weights
    held = {"weights": weights}
    if master and not spread.offload_optimizer:
        held["float32 master weights"] = master
    held["optimizer states"] = 0 if spread.offload_optimizer else kept.kept
    if settings.reference and not settings.lora:
        held["reference model"] = model.weights // (share if spread.shards_weights else 1)
    if spread.kind == "DDP":
        held["DDP's buckets"] = model.trained_bytes
    if settings.vllm_share and not settings.vllm_sleeps:
        held["vLLM"] = _vllm(settings, device_bytes)
    if spread.kind == "ZeRO-3":  # which makes both once, the others for each step
        held |= {"gradients": _gradients(settings, model), BUCKET: _bucket(settings, model)}
    if settings.on_gpu:
        held["GPU context and libraries (assumed)"] = GPU_OVERHEAD
    return held


def _optimizer(settings: Settings, model: _Model) -> tuple[States, int]:
    """The optimizer's states on a process, and the master weights that it keeps beside the model's."""
    spread, share = settings.spread, settings.spread.processes
    all_at_once = settings.on_gpu
    if spread.kind.startswith("ZeRO"):
        # It is given one flat float32 tensor, a copy of this process's part. (DeepSpeed 0.19.8 would make none of
        # float32 weights under ZeRO-3, but compares a device with its name, and so makes one.)
        flat = torch.empty(-(-model.trained // share), device="meta")
        return states(settings.optim, [flat], all_at_once=all_at_once), 4 * flat.numel()
    if spread.kind == "FSDP2":
        dtype = torch.float32 if settings.mixed in HALVES else None
        parts = [_part(shape, dtype or own, share) for shape, own in model.shapes]
    else:
        parts = [torch.empty(shape, dtype=dtype, device="meta") for shape, dtype in model.shapes]
    return states(settings.optim, parts, all_at_once=all_at_once), 0


def _part(shape: tuple[int, ...], dtype: torch.dtype, share: int) -> torch.Tensor:
    # FSDP2 splits along the first dimension.
    first, *rest = shape or (1,)
    return torch.empty((-(-first // share), *rest), dtype=dtype, device="meta")


def _passes(settings: Settings, model: _Model) -> dict[str, int]:
    step = trace_step(settings.as_built().but(completion=0, generated=0))
    spread = settings.spread
    if spread.shards_optimizer:
        parts = {"activations": step.activations} | _communication(settings, model) | _kept_gradients(settings, model)
        if spread.kind == "ZeRO-3":
            parts["weights being gathered"] = min(model.parameters, PREFETCHED) * model.element
        if spread.kind.startswith("ZeRO") and model.trained > BUCKET_SIZE:
            parts["gradients being reduced"] = _reduced(model)  # whenever the bucket is full
        return parts
    if settings.accumulation > 1:
        return {"gradients": model.trained_bytes, "activations": step.activations}
    return {"gradients": step.gradients, "activations": step.transition - step.gradients}


def _reducing(settings: Settings, model: _Model) -> dict[str, int]:
    """What there is while DeepSpeed reduces the last gradients of a step."""
    parts = _communication(settings, model) | {"gradients being reduced": _reduced(model)}
    return parts | _kept_gradients(settings, model)


def _stepping(settings: Settings, model: _Model) -> dict[str, int]:
    spread = settings.spread
    parts = {"gradients": _gradients(settings, model)}
    optimizer, _ = _optimizer(settings, model)
    momentary = optimizer.momentary
    if spread.kind.startswith("ZeRO"):
        momentary += 4 * -(-model.trained // spread.processes)  # the gradients in float32
    if not spread.offload_optimizer:
        parts["optimizer, for the moment"] = momentary
    return parts


def _kept_gradients(settings: Settings, model: _Model) -> dict[str, int]:
    """Those kept while others are still to come: of earlier batches, and of buckets that were full before."""
    if settings.spread.kind in ("ZeRO-1", "ZeRO-2") and settings.accumulation == 1 and model.trained <= BUCKET_SIZE:
        return {}
    return {"gradients": _gradients(settings, model)}


def _gradients(settings: Settings, model: _Model) -> int:
    spread = settings.spread
    if spread.kind in ("ZeRO-2", "ZeRO-3"):
        return model.trained * model.element // spread.processes
    if spread.kind == "FSDP2":
        each = 4 * model.trained if settings.mixed in HALVES else model.trained_bytes
        return 0 if spread.offload_weights else each // spread.processes
    return model.trained_bytes


def _communication(settings: Settings, model: _Model) -> dict[str, int]:
    """What sharding gathers and reduces at the peak."""
    kind, element = settings.spread.kind, model.element
    rest = model.parameters - model.in_blocks
    if kind == "FSDP2":
        gathered = rest + (2 * model.largest_block if settings.spread.reshard else model.in_blocks)
        reduced = min(model.trained, rest + 2 * model.largest_block)
        return {"gathered weights": gathered * element, "gradients to be reduced": reduced * element}
    parts = {BUCKET: _bucket(settings, model)}
    if kind == "ZeRO-3":
        parts["gathered weights"] = min(model.parameters, MAX_LIVE) * element
    return parts


def _bucket(settings: Settings, model: _Model) -> int:
    # A CPU gives memory only as it is written to.
    return BUCKET_SIZE * model.element if settings.on_gpu else _reduced(model)


def _reduced(model: _Model) -> int:
    """Of the bucket what is in it, which DeepSpeed copies to reduce it."""
    return min(BUCKET_SIZE, model.trained) * model.element


def _generating(settings: Settings, model: _Model) -> dict[str, int]:
    parts = {"generation: cache and logits": generation_bytes(settings.as_built())}
    if settings.spread.kind == "ZeRO-3":
        parts["gathered weights"] = model.parameters * model.element
    elif settings.spread.kind == "FSDP2":
        parts["gathered weights"] = _communication(settings, model)["gathered weights"]
    return parts


def _vllm(settings: Settings, device_bytes: int | None) -> int:
    if device_bytes is None:
        raise ValueError(
            "`vllm_gpu_memory_utilization` is a share of a GPU whose memory is not known: give `--gpu_memory 80GB`"
        )
    return int(settings.vllm_share * device_bytes)


def _numel(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
