"""The formula for peak memory: what a process holds throughout a step, and what each stage of the step adds.

Let P be the number of parameters, T those that are trained, and w the bytes per weight as loaded. A full fine-tuning
run on one process with AdamW takes:

- throughout: weights P w and optimizer states 2 T w;
- at the start of the backward pass: the activations of all layers and the work space of the output head;
- at the end of it: gradients T w, and a second gradient of the embedding matrix if it is also the output head;
- in the optimizer step: gradients T w.

ZeRO (arXiv 1910.02054) and FSDP2 divide these by the number of processes and add buffers. LoRA trains
T = r (inputs + outputs) weights per adapted linear map. `ASSUMPTIONS` lists what the formula leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from operator import or_
from typing import Any

from hf_sched.finetune.memory.run_settings import Run
from hf_sched.schedules.validation import ArgumentError

GIB = 2**30
GPU_OVERHEAD = GIB
DEEPSPEED_ON_HOST = 100 * 2**20  # measured on CPUs: 78 to 143 MiB, independent of the model
BUCKET = 500_000_000  # elements: DeepSpeed's reduce_bucket_size
MAX_LIVE = 1_000_000_000  # parameters that ZeRO-3 keeps gathered (stage3_max_live_parameters)
PREFETCH = 50_000_000  # parameters that ZeRO-3 gathers at a time into a second buffer (stage3_prefetch_bucket_size)
TILE = 4096, 32_768  # tokens and words: TRL's fused output head computes logits in tiles of this size
TILE_BYTES_ON_CPU = 33  # per logit of a tile without Triton: eight float32 copies and a mask

ASSUMPTIONS = (
    "full batches of the longest sequence; attention that keeps no scores (not `eager`); layers like Llama's, with "
    "gated MLPs; DeepSpeed's default buckets; on a GPU 1 GiB for context, libraries and fragmentation"
)

# Optimizer states per weight, and the bytes of each (0: as many as the weight has). 8-bit states (arXiv 2110.02861)
# add a float32 per 256. Adafactor keeps a row and a column per matrix, which is next to nothing.
OPTIMIZERS: dict[str, tuple[int, float]] = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused"), (2, 0)),
    **dict.fromkeys(("rmsprop", "adagrad"), (1, 0)),
    **dict.fromkeys(("sgd", "adafactor"), (0, 0)),
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit"), (2, 1 + 4 / 256)),
    **dict.fromkeys(("lion_8bit", "paged_lion_8bit"), (1, 1 + 4 / 256)),
    "paged_adamw_32bit": (2, 4),
}
# How far a run is sharded, as DeepSpeed counts: 1 optimizer states, 2 gradients, 3 weights.
STAGES = {"one process": 0, "DDP": 0, "ZeRO-1": 1, "ZeRO-2": 2, "ZeRO-3": 3, "FSDP2": 3}


@dataclass(frozen=True)
class Estimate:
    """Memory of a process on its device, in bytes."""

    run: Run
    trained: int  # trained parameters
    least: int  # what no smaller batch or shorter sequence reduces, without assumed overhead
    breakdown: dict[str, dict[str, int]]  # bytes by purpose at each stage of a step

    @property
    def peak(self) -> str:
        """The stage that needs the most."""
        return max(self.breakdown, key=lambda name: sum(self.breakdown[name].values()))

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return sum(self.breakdown[self.peak].values())


@dataclass(frozen=True)
class _Sizes:
    trained: int  # number of trained weights
    element: int  # bytes of a trained weight as stored
    compute: int  # bytes of a number in the forward pass
    weights: int  # bytes of all weights before sharding
    casts: int  # bytes of autocast's half-precision copies of the weights


def _sizes(run: Run) -> _Sizes:
    linear, others = run.shape.linear_parameters, run.shape.parameters - run.shape.linear_parameters
    loaded, is_quantized = 2 if run.dtype.endswith("16") else 4, run.load_in_4bit or run.load_in_8bit
    compute = 2 if run.bf16 else loaded
    is_cast = STAGES[run.parallelism] > 0 and run.bf16 and not is_quantized  # DeepSpeed and FSDP use no autocast
    stored = compute if is_cast else loaded
    casts = linear * compute if run.bf16 and not is_cast and loaded == 4 else 0
    if not run.use_peft:
        element = 4 if run.parallelism == "FSDP2" and is_cast else stored
        return _Sizes(linear + others, element, compute, (linear + others) * element, casts)
    trained = run.shape.layers * run.lora_r * sum(inputs + outputs for inputs, outputs in run.adapted)
    # PEFT keeps adapters in float32, TRL those of quantized models in bfloat16.
    element = 2 if is_quantized or is_cast else stored if run.parallelism == "ZeRO-3" else 4
    # 4 bits: and a float32 per 64 weights (arXiv 2305.14314).
    per_linear = 0.5 + 4 / 64 if run.load_in_4bit else 1 if run.load_in_8bit else stored
    return _Sizes(trained, element, compute, int(linear * per_linear) + others * stored + trained * element, casts)


def estimate(run: Run, device_bytes: int | None = None) -> Estimate:
    """Estimate the peak memory of a run on each process; vLLM takes its share of `device_bytes`.

    Raises:
        ArgumentError: The optimizer is unknown, or the memory of the GPU is needed.
    """
    if run.optim not in OPTIMIZERS:
        raise ArgumentError("optim", f"one of {', '.join(OPTIMIZERS)}", run.optim, hint="its memory is not known")
    has_vllm = run.use_vllm and run.vllm_mode == "colocate"
    if has_vllm and device_bytes is None:
        rule = "is a share of a GPU whose memory is not known"
        raise ArgumentError("vllm_gpu_memory_utilization", rule=rule, hint="pass `--gpu-memory 80GB`")
    sizes, stage, is_zero = _sizes(run), STAGES[run.parallelism], run.parallelism.startswith("ZeRO")
    state_shards, gradient_shards, weight_shards = (run.processes if stage >= least else 1 for least in (1, 2, 3))
    weights, all_gradients = sizes.weights // weight_shards, sizes.trained * sizes.element
    states, bytes_each = OPTIMIZERS[run.optim]
    master_bytes = 4 if is_zero else sizes.element
    has_reference = not run.use_peft and (run.kind == "dpo" or (run.kind == "grpo" and run.beta > 0))
    master = 4 * sizes.trained // state_shards if is_zero else 0
    held = {
        "weights": weights,
        "reference model": weights if has_reference else 0,
        "DDP's buckets": all_gradients if run.parallelism == "DDP" else 0,
        "float32 master weights": master,
        "optimizer states": int(states * sizes.trained * (bytes_each or master_bytes)) // state_shards,
    }
    gradients = {"gradients": all_gradients // gradient_shards}
    least = sum(held.values()) + sum(gradients.values())
    held["GPU context and libraries (assumed)"] = 0 if run.use_cpu else GPU_OVERHEAD
    held["DeepSpeed on the host"] = DEEPSPEED_ON_HOST if is_zero and run.use_cpu else 0
    vllm = {"vLLM": int(run.vllm_gpu_memory_utilization * (device_bytes or 0)) if has_vllm else 0}
    held |= {} if run.vllm_enable_sleep_mode else vllm

    start, step = {"activations": _activations(run, sizes)}, dict(gradients)
    fills_bucket = sizes.trained > BUCKET
    accumulates = run.gradient_accumulation_steps > 1
    if stage:
        # ZeRO-1 and 2 keep gradients between batches and once a bucket is full, the others throughout.
        end = _buffers(run, sizes) | (gradients if accumulates or fills_bucket or stage == 3 else {})
        start |= end
    else:
        start |= gradients if accumulates else {}
        second = run.shape.embedding * sizes.element if run.shape.tied and not run.use_peft else 0
        end = gradients | {"embedding's second gradient": second}
    if is_zero:
        end["gradients being reduced"] = min(sizes.trained, BUCKET) * sizes.element
        start["gradients being reduced"] = BUCKET * sizes.element if fills_bucket else 0
        step["float32 gradients"] = master
    if run.parallelism == "ZeRO-3":
        start["weights being gathered"] = min(run.shape.parameters, PREFETCH) * sizes.compute
    if not run.use_cpu and run.optim in ("adamw_torch", "rmsprop", "adagrad"):  # not fused: a copy of all weights
        step["optimizer's temporaries"] = sizes.trained * master_bytes // state_shards
    breakdown = {"start of the backward pass": start, "end of the backward pass": end, "optimizer step": step}
    if run.kind == "grpo":
        breakdown["generation"] = vllm if run.use_vllm else _generation(run, sizes)
    full = {name: {part: size for part, size in (held | parts).items() if size} for name, parts in breakdown.items()}
    return Estimate(run, sizes.trained, least, full)


def _activations(run: Run, sizes: _Sizes) -> int:
    """Return the bytes at the start of the backward pass: those that all layers saved, and the output head's.

    Per layer and token, attention saves queries, keys, values and its output; the MLP the gate, its activation, the up
    projection and their product; each RMSNorm its input in float32, the normalized input, and its output, which
    autocast copies for each linear map. Liger recomputes some of it. A frozen linear map saves nothing; an adapter its
    input. With gradient checkpointing each layer saves its input only.
    """
    shape, tokens, s, has_liger = run.shape, run.batch * run.length, sizes.compute, run.use_liger_kernel
    hidden, intermediate, embedding = shape.hidden, shape.intermediate, 0 if run.use_peft else shape.embedding
    # Rows of different lengths need a mask, which makes sdpa repeat grouped keys and values.
    layer = 2 * s * (shape.query + (shape.query if run.batch > 1 else shape.key_value))
    if run.use_peft:
        layer += 8 * hidden + 3 * s * intermediate + s * sum(inputs for inputs, _ in run.adapted)
    else:
        norms = 2 * (4 if has_liger else 8) + 5 * s if sizes.casts else 2 * (2 * s if has_liger else 4 + 2 * s)
        layer += norms * hidden + (3 if has_liger else 4) * s * intermediate
    if run.full_logits:
        # Logits, their float32 copy and its gradient; SFT's entropy metric takes another float32 copy.
        head = tokens * shape.vocabulary * (s + 8 + 4 * (run.kind == "sft")) + embedding * sizes.element
    else:
        # On a GPU only the tokens that count are scored. The gradient of the head's weight is summed in float32.
        scored = run.batch * run.max_completion_length if run.kind == "grpo" and not run.use_cpu else tokens
        tile = min(scored, TILE[0]) * min(shape.vocabulary, TILE[1])
        head = tile * (TILE_BYTES_ON_CPU if run.use_cpu else s) + 4 * scored * hidden + 4 * embedding
        head += embedding * sizes.element if sizes.element < 4 else 0
    residual = 4 if sizes.casts else s
    # Gradients within a layer: of gate, up projection and product, and of the layer's input and output.
    passing = (3 * s * intermediate + 2 * residual * hidden) * tokens + embedding * sizes.element
    if not run.gradient_checkpointing:
        return shape.layers * layer * tokens + sizes.casts + max(head, passing)
    # Autocast's copies of trained weights live as long as the forward pass.
    casts = 0 if run.use_peft else sizes.casts
    return shape.layers * residual * hidden * tokens + max(head, casts, layer * tokens + passing)


def _buffers(run: Run, sizes: _Sizes) -> dict[str, int]:
    shape, s = run.shape, sizes.compute
    if run.parallelism == "FSDP2":  # gathers two layers at a time
        gathered = shape.outside_layers + 2 * (shape.parameters - shape.outside_layers) // shape.layers
        return {"gathered weights": gathered * s, "gradients being reduced": min(sizes.trained, gathered) * s}
    # A GPU allocates the whole bucket, a CPU only the pages that are written to.
    bucket = (min(BUCKET, sizes.trained) if run.use_cpu else BUCKET) * sizes.element
    gathered = min(shape.parameters, MAX_LIVE) * s if run.parallelism == "ZeRO-3" else 0
    return {"DeepSpeed's bucket": bucket, "gathered weights": gathered}


def _generation(run: Run, sizes: _Sizes) -> dict[str, int]:
    """Bytes of generation by the trainer's own model."""
    shape, s, rows = run.shape, sizes.compute, run.generated
    cache = 2 * shape.layers * shape.key_value * s * rows * run.length
    # Logits, warped logits, probabilities and a temporary; the keys of a layer exist twice while they grow.
    logits = 4 * 4 * rows * shape.vocabulary + cache // (2 * shape.layers)
    prefill = rows * run.prompt * (3 * s * shape.intermediate + 8 * shape.hidden)
    gathered = _buffers(run, sizes)["gathered weights"] if run.parallelism == "FSDP2" else 0
    if run.parallelism == "ZeRO-3":
        gathered = shape.parameters * s
    casts = 0 if run.use_peft else sizes.casts
    return {"key-value cache": cache, "logits": max(logits, prefill), "autocast": casts, "gathered weights": gathered}


def alternative(run: Run, device_bytes: int) -> tuple[str, Estimate] | None:
    """Combine changes, the cheapest first, until a run fits; return what to write and the estimate, or None."""
    for change in accumulate(_changes(run), or_):  # a stronger change replaces a weaker one of its kind
        after = estimate(replace(run, **change), device_bytes)
        if after.total <= device_bytes:
            return _text(change), after
    return None


def _changes(run: Run) -> list[dict[str, Any]]:
    """Changes that save memory, the cheapest kind first, and within a kind the weakest."""
    rows, steps, halves = run.per_device_train_batch_size, run.gradient_accumulation_steps, (2, 4, 8, 16, 32, 64)
    lora = {} if run.use_peft else {"use_peft": True, "lora_target_modules": "all-linear"}
    length = "max_completion_length" if run.kind == "grpo" else "max_length"
    longest, launches = getattr(run, length), list(STAGES)
    changes: list[dict[str, Any]] = [{"gradient_checkpointing": True}]
    for half in halves:
        if rows % half == 0:
            changes.append({"per_device_train_batch_size": rows // half, "gradient_accumulation_steps": steps * half})
    if not run.use_cpu:
        changes += [{"vllm_enable_sleep_mode": run.use_vllm}, {"bf16": True}]
        if run.processes > 1 and not (run.load_in_4bit or run.load_in_8bit):
            stronger = max(launches.index("ZeRO-2"), launches.index(run.parallelism) + 1)
            changes += [{"parallelism": launch} for launch in launches[stronger:]]
        else:
            changes.append({"optim": "adamw_bnb_8bit"})
        changes += [lora, {**lora, "dtype": "bfloat16"}]
    changes += [{length: longest // half} for half in halves if longest // half >= 256]
    return [change for change in changes if replace(run, **change) != run]


def _text(change: dict[str, Any]) -> str:
    written = {name: f"`{name}: {str(value).lower()}`" for name, value in change.items()}
    if "parallelism" in change:
        written["parallelism"] = f"accelerate_configs/{change['parallelism'].lower().replace('-', '')}.yaml"
    return ", ".join(written.values())
