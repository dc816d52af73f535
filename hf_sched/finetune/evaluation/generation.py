"""Completions in batches, by transformers or by vLLM, greedy or sampled.

What is sampled for a prompt depends on its own seed alone, not on the batch that it is in, nor on what came before: an
evaluation that was interrupted goes on with the very same samples.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from hf_sched.finetune.evaluation.generation_cache import Completion, adapter_base

ENGINES = ("auto", "transformers", "vllm")


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"`max_new_tokens` must be above 0, received {self.max_new_tokens}")
        if self.temperature < 0:
            raise ValueError(f"`temperature` must not be negative, received {self.temperature}: 0 is greedy")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p` must be above 0 and at most 1, received {self.top_p}: 1 leaves no token out")


def default_device() -> str:
    """A GPU, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Loading:
    """How a model is loaded."""

    dtype: str = "auto"
    device: str = field(default_factory=default_device)
    revision: str | None = None
    trust_remote_code: bool = False


def choose_engine(name: str) -> str:
    """`transformers` or `vllm`; `auto` is vLLM where it is installed beside a GPU.

    Raises:
        ValueError: It is neither, or vLLM where it is not installed.
    """
    if name not in ENGINES:
        raise ValueError(f"`engine` must be one of {', '.join(ENGINES)}, received {name!r}")
    installed = importlib.util.find_spec("vllm") is not None
    if name == "vllm" and not installed:
        raise ValueError("`engine` is 'vllm', which is not installed: `pip install vllm`, or write 'transformers'")
    return "vllm" if name == "vllm" or (name == "auto" and installed and torch.cuda.is_available()) else "transformers"


def load_tokenizer(model: str, loading: Loading) -> Any:
    """A model's tokenizer; an adapter without one of its own has its base's."""
    base = adapter_base(model)
    source = base if base and not (Path(model).expanduser() / "tokenizer_config.json").is_file() else model
    tokenizer = AutoTokenizer.from_pretrained(
        source, revision=loading.revision, trust_remote_code=loading.trust_remote_code
    )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def encode(tokenizer: Any, prompt: str | list[dict[str, str]]) -> list[int]:
    """A prompt's tokens: messages by the model's chat template, text as the tokenizer begins one."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


class TransformersEngine:
    """Generation by transformers, on one device; where a batch does not fit into its memory, in halves of it."""

    def __init__(self, model: str, tokenizer: Any, loading: Loading) -> None:
        self.tokenizer, self.loading = tokenizer, loading
        self.model = AutoModelForCausalLM.from_pretrained(
            model, dtype=loading.dtype, revision=loading.revision, trust_remote_code=loading.trust_remote_code
        )
        self.model = self.model.to(loading.device).eval()
        self.stops = _stop_tokens(self.model.generation_config.eos_token_id, tokenizer)
        # The model's own settings (a repetition penalty, say) would go into what is said to be plain greedy.
        self.model.generation_config = GenerationConfig(eos_token_id=self.stops, pad_token_id=tokenizer.pad_token_id)
        self._fits: int | None = None

    def complete(self, prompts: Sequence[list[int]], seeds: Sequence[int], decoding: Decoding) -> list[Completion]:
        """A completion for each prompt, in order; a seed decides what is sampled for its prompt."""
        done: list[Completion] = []
        while len(done) < len(prompts):
            part = slice(len(done), len(done) + (self._fits or len(prompts)))
            try:
                done += self._generate(prompts[part], seeds[part], decoding)
                continue
            except RuntimeError as error:
                rows = len(prompts[part])
                if rows == 1 or not should_reduce_batch_size(error):
                    raise
            self._fits = rows // 2
            warnings.warn(f"{rows} prompts at once do not fit into memory: going on with {self._fits}", stacklevel=2)
            clear_device_cache(garbage_collection=True)
        return done

    def _generate(self, prompts: Sequence[list[int]], seeds: Sequence[int], decoding: Decoding) -> list[Completion]:
        ids = [torch.tensor(prompt) for prompt in prompts]
        padded = _pad_left(ids, self.tokenizer.pad_token_id).to(self.loading.device)
        mask = _pad_left([torch.ones_like(one) for one in ids], 0).to(self.loading.device)
        processors = LogitsProcessorList()
        if decoding.temperature:
            processors.append(TemperatureLogitsWarper(decoding.temperature))
            if decoding.top_p < 1:
                processors.append(TopPLogitsWarper(decoding.top_p))
            processors.append(SeededChoice(seeds, padded.shape[1], decoding.max_new_tokens, self.loading.device))
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=padded,
                attention_mask=mask,
                max_new_tokens=decoding.max_new_tokens,
                do_sample=False,  # SeededChoice leaves one token to choose
                logits_processor=processors,
            )
        return [self._read(row) for row in output[:, padded.shape[1] :].tolist()]

    def _read(self, tokens: list[int]) -> Completion:
        end = next((place for place, token in enumerate(tokens) if token in self.stops), None)
        return Completion(self.tokenizer.decode(tokens[:end], skip_special_tokens=True), end is not None)


class SeededChoice(LogitsProcessor):
    """Samples, for each row by a generator of its own: leaves the one token that a uniform number falls on."""

    def __init__(self, seeds: Sequence[int], prompt_length: int, max_new_tokens: int, device: str) -> None:
        self.prompt_length = prompt_length
        rows = [
            torch.rand(max_new_tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            for seed in seeds
        ]
        self.uniform = torch.stack(rows).to(device)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """All tokens but the chosen one at minus infinity."""
        step = input_ids.shape[1] - self.prompt_length
        # In float64: over a large vocabulary a float32 sum is off by more than a rare token's probability.
        cumulative = scores.softmax(-1, dtype=torch.float64).cumsum(-1)
        mark = self.uniform[:, step : step + 1] * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, mark, right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)


class VllmEngine:
    """Generation by vLLM, which batches by itself."""

    def __init__(self, model: str, tokenizer: Any, loading: Loading) -> None:
        from vllm import LLM
        from vllm.lora.request import LoRARequest

        base = adapter_base(model)
        options: dict[str, Any] = {}
        if base:
            from peft import PeftConfig

            options = {"enable_lora": True, "max_lora_rank": PeftConfig.from_pretrained(model).r}
        self.adapter = LoRARequest("adapter", 1, model) if base else None
        self.llm = LLM(
            model=base or model,
            dtype=loading.dtype,
            revision=loading.revision,
            trust_remote_code=loading.trust_remote_code,
            **options,
        )
        self.stops = _stop_tokens(None, tokenizer)  # vLLM adds those of the model's generation_config

    def complete(self, prompts: Sequence[list[int]], seeds: Sequence[int], decoding: Decoding) -> list[Completion]:
        """A completion for each prompt, in order; a seed decides what is sampled for its prompt."""
        from vllm import SamplingParams

        settings = [
            SamplingParams(
                temperature=decoding.temperature,
                top_p=decoding.top_p,
                max_tokens=decoding.max_new_tokens,
                seed=seed,
                stop_token_ids=self.stops,
            )
            for seed in seeds
        ]
        requested = [{"prompt_token_ids": prompt} for prompt in prompts]
        outputs = self.llm.generate(requested, settings, lora_request=self.adapter, use_tqdm=False)
        return [Completion(output.outputs[0].text, output.outputs[0].finish_reason == "stop") for output in outputs]


def load_engine(name: str, model: str, tokenizer: Any, loading: Loading) -> TransformersEngine | VllmEngine:
    """The engine by that name, with the model loaded."""
    return (VllmEngine if name == "vllm" else TransformersEngine)(model, tokenizer, loading)


def _stop_tokens(configured: int | list[int] | None, tokenizer: Any) -> list[int]:
    """What ends a completion, by the model's generation settings and by the tokenizer (a chat's end of turn)."""
    listed = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in (*listed, tokenizer.eos_token_id) if token is not None})


def _pad_left(rows: list[torch.Tensor], value: int) -> torch.Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=value, padding_side="left")
