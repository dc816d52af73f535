"""The formula for peak memory: what a process holds throughout a step, and what each point of the step adds.

Let P be the number of parameters, T those that are trained, w the bytes per weight as loaded, and s the bytes in which
the model computes (2 under bf16 and fp16). A full fine-tuning run on one process with AdamW takes:

- throughout: weights P w and optimizer states 2 T w;
- at the start of the backward pass: the activations of all layers and the work space of the output head;
- at the end of it: gradients T w, and a second gradient of the embedding matrix if it is also the output head;
- in the optimizer step: gradients T w.

ZeRO (arXiv 1910.02054) and FSDP2 divide these by the number of processes and add buffers. LoRA trains
T = r (inputs + outputs) weights per adapted linear map. `ASSUMPTIONS` lists what the formula leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hf_sched.finetune.memory.read import Lora, Run
from hf_sched.schedules.validation import ArgumentError

GIB = 2**30
GPU_OVERHEAD = GIB
DEEPSPEED_ON_HOST = 100 * 2**20  # measured on CPUs: 78 to 143 MiB, independent of the model
BUCKET = 500_000_000  # elements: DeepSpeed's reduce_bucket_size
MAX_LIVE = 1_000_000_000  # parameters that ZeRO-3 keeps gathered (stage3_max_live_parameters)
PREFETCH = 50_000_000  # parameters that ZeRO-3 gathers at a time into a second buffer (stage3_prefetch_bucket_size)
TILE_TOKENS, TILE_VOCABULARY = 4096, 32_768  # TRL's fused output head computes logits in tiles of this size
# Without Triton, torch operations take this many bytes per logit of a tile: eight float32 copies and a mask.
TILE_BYTES_ON_CPU = 33

# Optimizer states per weight, and the bytes of each (0: as many as the weight has). 8-bit states (arXiv 2110.02861)
# add a float32 per 256. Adafactor keeps a row and a column per matrix, which is next to nothing.
_EIGHT_BITS = 1 + 4 / 256
OPTIMIZERS: dict[str, tuple[int, float]] = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused"), (2, 0)),
    **dict.fromkeys(("rmsprop", "adagrad"), (1, 0)),
    **dict.fromkeys(("sgd", "adafactor"), (0, 0)),
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit"), (2, _EIGHT_BITS)),
    **dict.fromkeys(("lion_8bit", "paged_lion_8bit", "rmsprop_bnb_8bit"), (1, _EIGHT_BITS)),
    **dict.fromkeys(("lion_32bit", "paged_lion_32bit", "rmsprop_bnb", "rmsprop_bnb_32bit"), (1, 4)),
    "paged_adamw_32bit": (2, 4),
}

ASSUMPTIONS = (
    "every batch is full and every sequence is as long as the longest",
    "attention uses a kernel that keeps no scores (sdpa, flash) unless `attn_implementation` is eager",
    "the layers are like Llama's, with gated MLPs",
    "DeepSpeed uses its default buckets, and FSDP2 gathers two layers at a time",
    f"a GPU: {GPU_OVERHEAD / GIB:g} GiB for context, libraries and fragmentation (not measured)",
)


@dataclass(frozen=True)
class Estimate:
    """Memory of a process on its device, in bytes."""

    run: Run
    trained: int  # trained parameters
    least: int  # what no smaller batch or shorter sequence reduces, without assumed overhead
    breakdown: dict[str, dict[str, int]]  # bytes by purpose at each point of a step

    @property
    def peak(self) -> str:
        """The point that needs the most."""
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
    shape, sharded = run.shape, run.parallelism.is_sharded
    compute = 2 if run.is_mixed or run.weight_bytes == 2 else 4
    is_cast = sharded and run.is_mixed and not run.bits  # DeepSpeed and FSDP cast weights instead of using autocast
    stored = compute if is_cast else run.weight_bytes
    linear = shape.linear_parameters
    casts = linear * compute if run.is_mixed and not is_cast and run.weight_bytes == 4 else 0
    if run.lora is None:
        element = 4 if run.parallelism.kind == "FSDP2" and is_cast else stored
        return _Sizes(shape.parameters, element, compute, shape.parameters * element, casts)
    trained = shape.layers * run.lora.r * sum(sum(widths) for widths in run.lora.adapted(shape).values())
    # PEFT keeps adapters in float32, TRL those of quantized models in bfloat16.
    element = 2 if run.bits or is_cast else stored if run.parallelism.kind == "ZeRO-3" else 4
    per_linear = {0: stored, 4: 0.5 + 4 / 64, 8: 1}[run.bits]  # 4 bits: a float32 per 64 weights (arXiv 2305.14314)
    weights = int(linear * per_linear) + (shape.parameters - linear) * stored + trained * element
    return _Sizes(trained, element, compute, weights, casts)


def estimate(run: Run, device_bytes: int | None = None) -> Estimate:
    """Estimate the peak memory of a run on each of its processes.

    Args:
        run: The run.
        device_bytes: The memory of the GPU, needed if vLLM takes a share of it.

    Raises:
        ArgumentError: The optimizer is unknown, or the memory of the GPU is needed.
    """
    if run.optim not in OPTIMIZERS:
        raise ArgumentError("optim", f"one of {', '.join(OPTIMIZERS)}", run.optim, hint="its memory is not known")
    if run.vllm_share and device_bytes is None:
        rule = "is a share of a GPU whose memory is not known"
        raise ArgumentError("vllm_gpu_memory_utilization", rule=rule, hint="pass `--gpu-memory 80GB`")
    sizes, kind, n = _sizes(run), run.parallelism.kind, run.parallelism.processes
    is_zero, shards = kind.startswith("ZeRO"), n if run.parallelism.is_sharded else 1
    weight_shards = n if run.parallelism.shards_weights else 1
    states, bytes_each = OPTIMIZERS[run.optim]
    master = 4 * sizes.trained // n if is_zero else 0
    held = {
        "weights": sizes.weights // weight_shards,
        "float32 master weights": master,
        "optimizer states": int(states * sizes.trained * (bytes_each or (4 if is_zero else sizes.element))) // shards,
        "reference model": sizes.weights // weight_shards if run.reference else 0,
        "DDP's buckets": sizes.trained * sizes.element if kind == "DDP" else 0,
    }
    gradients = {"gradients": sizes.trained * sizes.element // (n if kind in ("ZeRO-2", "ZeRO-3", "FSDP2") else 1)}
    if run.parallelism.offloads_optimizer:
        held |= {"float32 master weights": 0, "optimizer states": 0}
    if run.parallelism.offloads_weights:
        held["weights"], gradients = 0, {} if kind == "FSDP2" else gradients
    least = sum(held.values()) + sum(gradients.values())
    held["GPU context and libraries (assumed)"] = GPU_OVERHEAD if run.on_gpu else 0
    held["DeepSpeed on the host"] = DEEPSPEED_ON_HOST if is_zero and not run.on_gpu else 0
    vllm = {"vLLM": int(run.vllm_share * (device_bytes or 0))}
    held |= {} if run.vllm_sleeps else vllm

    start, step = {"activations": _activations(run, sizes)}, dict(gradients)
    if run.parallelism.is_sharded:
        # ZeRO-1 and 2 keep gradients between batches and once a bucket is full, the others throughout.
        keeps = run.accumulation > 1 or sizes.trained > BUCKET or kind in ("ZeRO-3", "FSDP2")
        end = (gradients if keeps else {}) | _buffers(run, sizes)
        start |= end
        if is_zero:
            reduced = min(sizes.trained, BUCKET) * sizes.element
            end |= {"gradients being reduced": reduced}
            start |= {"gradients being reduced": reduced if sizes.trained > BUCKET else 0}
            if kind == "ZeRO-3":
                start["weights being gathered"] = min(run.shape.parameters, PREFETCH) * sizes.compute
            step |= {"float32 gradients": master}
    else:
        start |= gradients if run.accumulation > 1 else {}
        is_twice = run.shape.tied and run.lora is None
        end = gradients | {"embedding's second gradient": run.shape.embedding * sizes.element if is_twice else 0}
    if run.on_gpu and run.optim in ("adamw_torch", "rmsprop", "adagrad"):  # not fused: a copy of all weights
        step["optimizer's temporaries"] = sizes.trained * (4 if is_zero else sizes.element) // shards
    breakdown = {"start of the backward pass": start, "end of the backward pass": end, "optimizer step": step}
    if run.generated or run.vllm_sleeps:
        breakdown["generation"] = vllm | (_generation(run, sizes) if run.generated else {})
    full = {name: {part: size for part, size in (held | parts).items() if size} for name, parts in breakdown.items()}
    return Estimate(run, sizes.trained, least, full)


def _layer_bytes(run: Run, sizes: _Sizes) -> int:
    """Bytes per token that a layer saves for the backward pass.

    Attention saves queries, keys, values and its output; the MLP the gate, its activation, the up projection and their
    product. Each RMSNorm saves its input in float32, the normalized input, and its output, which autocast copies for
    each linear map. Liger's kernels recompute the MLP's activation and the normalized input. A frozen linear map saves
    nothing; an adapter saves its input after dropout and the dropout mask.
    """
    shape, s = run.shape, sizes.compute
    repeated = shape.query if run.is_padded else shape.key_value  # a mask makes sdpa repeat grouped keys and values
    attention = 2 * s * (shape.query + repeated) + ((4 + s) * shape.heads * run.length if run.is_eager else 0)
    if run.lora:
        mask = (1 if run.on_gpu else 4) if run.lora.dropout else 0
        inputs = sum(inputs for inputs, _ in run.lora.adapted(shape).values())
        return 2 * 4 * shape.hidden + attention + 3 * s * shape.intermediate + (s + mask) * inputs
    norms = 2 * (4 if run.liger else 8) + 5 * s if sizes.casts else 2 * (2 * s if run.liger else 4 + 2 * s)
    return norms * shape.hidden + attention + (3 if run.liger else 4) * s * shape.intermediate


def _activations(run: Run, sizes: _Sizes) -> int:
    """Bytes at the start of the backward pass, when all layers have saved theirs and the output head works.

    With gradient checkpointing each layer saves its input only, and one layer at a time is recomputed.
    """
    shape, tokens, s = run.shape, run.batch * run.length, sizes.compute
    residual = 4 if sizes.casts else s
    embedding = 0 if run.lora else shape.embedding
    if run.full_logits:
        # Logits, their float32 copy and its gradient; SFT's entropy metric takes another float32 copy.
        head = tokens * shape.vocabulary * (s + 8 + 4 * (run.kind == "sft"))
    else:
        # On a GPU only the tokens that count are scored. The gradient of the head's weight is summed in float32.
        scored = run.batch * run.completion if run.completion and run.on_gpu else tokens
        tile = min(scored, TILE_TOKENS) * min(shape.vocabulary, TILE_VOCABULARY)
        head = tile * (s if run.on_gpu else TILE_BYTES_ON_CPU) + 4 * scored * shape.hidden + 4 * embedding
    head += embedding * sizes.element if sizes.element < 4 or run.full_logits else 0
    layer = _layer_bytes(run, sizes) * tokens
    # Gradients within a layer: of gate, up projection and product, and of the layer's input and output.
    passing = (3 * s * shape.intermediate + 2 * residual * shape.hidden) * tokens + embedding * sizes.element
    if not run.checkpointing:
        return shape.layers * layer + sizes.casts + max(head, passing)
    # Autocast's copies of trained weights live as long as the forward pass.
    casts = 0 if run.lora else sizes.casts
    return shape.layers * residual * shape.hidden * tokens + max(head, casts, layer + passing)


def _buffers(run: Run, sizes: _Sizes) -> dict[str, int]:
    shape, s = run.shape, sizes.compute
    if run.parallelism.kind == "FSDP2":
        layer = (shape.parameters - shape.outside_layers) // shape.layers
        gathered = shape.outside_layers + (2 if run.parallelism.reshards else shape.layers) * layer
        reduced = min(sizes.trained, shape.outside_layers + 2 * layer)
        return {"gathered weights": gathered * s, "gradients being reduced": reduced * s}
    # A GPU allocates the whole bucket, a CPU only the pages that are written to.
    bucket = (BUCKET if run.on_gpu else min(BUCKET, sizes.trained)) * sizes.element
    gathered = min(shape.parameters, MAX_LIVE) * s if run.parallelism.kind == "ZeRO-3" else 0
    return {"DeepSpeed's bucket": bucket, "gathered weights": gathered}


def _generation(run: Run, sizes: _Sizes) -> dict[str, int]:
    """Bytes of generation by the trainer's own model."""
    shape, s, rows = run.shape, sizes.compute, run.generated
    cache = 2 * shape.layers * shape.key_value * s * rows * run.length
    # Logits, warped logits, probabilities and a temporary; the keys of a layer exist twice while they grow.
    logits = 4 * 4 * rows * shape.vocabulary + cache // (2 * shape.layers)
    prefill = rows * (run.length - run.completion) * (3 * s * shape.intermediate + 8 * shape.hidden)
    gathered = shape.parameters * s if run.parallelism.shards_weights else 0
    if run.parallelism.kind == "FSDP2":
        gathered = _buffers(run, sizes)["gathered weights"]
    casts = 0 if run.lora else sizes.casts
    return {"key-value cache": cache, "logits": max(logits, prefill), "autocast": casts, "gathered weights": gathered}


def alternatives(run: Run, device_bytes: int) -> dict[str, Estimate]:
    """Find up to four changes after which a run fits; if no single one is enough, combine the strongest of each kind.

    Returns:
        The estimate after each change, by a description of the change.
    """
    found: dict[str, Estimate] = {}
    for changes in _changes(run):
        for text, changed in changes.items():
            after = estimate(changed, device_bytes)
            if after.total <= device_bytes and len(found) < 4:
                found[text] = after
                break
    texts: list[str] = []
    for number in range(0 if found else len(_changes(run))):
        for text, changed in list(_changes(run)[number].items())[-1:]:
            if changed != run:
                texts, run = [*texts, text], changed
            if (after := estimate(run, device_bytes)).total <= device_bytes:
                return {" with ".join(texts): after}
    return found


def _changes(run: Run) -> list[dict[str, Run]]:
    """Changes that may save memory, the cheapest kind first, and within a kind the weakest."""
    per_row = 2 if run.kind == "dpo" else 1
    halves = [2**power for power in range(1, 12)]
    smaller = {
        f"`per_device_train_batch_size: {batch // per_row}` and `gradient_accumulation_steps: {accumulation}`": replace(
            run, batch=batch, accumulation=accumulation
        )
        for half in halves
        for batch, accumulation in [(run.batch // half, run.accumulation * half)]
        if run.batch % (half * per_row) == 0
    }
    name, tokens = ("max_completion_length", run.completion) if run.completion else ("max_length", run.length)
    shorter = {
        f"`{name}: {kept}`": replace(run, length=run.length - tokens + kept, completion=kept if run.completion else 0)
        for kept in (tokens // half for half in halves)
        if kept >= 256
    }
    lora = run if run.lora else replace(run, lora=Lora(targets=("all-linear",)), reference=False)
    lora_text = "LoRA: `use_peft: true`, `lora_target_modules: all-linear`"
    files = {"ZeRO-2": "zero2.yaml", "ZeRO-3": "zero3.yaml", "FSDP2": "fsdp2.yaml"}
    sharded = {kind: replace(run, parallelism=replace(run.parallelism, kind=kind)) for kind in files}
    can_shard = run.parallelism.processes > 1 and not run.bits
    on_gpu = [
        {"`vllm_enable_sleep_mode: true`": replace(run, vllm_sleeps=run.vllm_share > 0)},
        {"`bf16: true`": replace(run, is_mixed=True)},
        {f"accelerate_configs/{files[kind]}": one for kind, one in sharded.items() if can_shard},
        {} if can_shard else {"`optim: adamw_bnb_8bit`": replace(run, optim="adamw_bnb_8bit")},
        {lora_text: lora, f"{lora_text}, `dtype: bfloat16`": replace(lora, weight_bytes=2)},
    ]
    checkpointing = {"`gradient_checkpointing: true`": replace(run, checkpointing=True)}
    return [checkpointing, smaller, *(on_gpu if run.on_gpu else [{lora_text: lora}]), shorter]
