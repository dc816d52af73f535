"""Generates completions in batches with transformers or vLLM, greedy or sampled.

A sampled completion depends only on its prompt and its seed, not on the batch. An interrupted evaluation therefore
continues with the same samples.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
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
from hf_sched.schedules.validation import ArgumentError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen; a temperature of 0 is greedy."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Loading:
    """How a model is loaded."""

    dtype: str = "auto"
    device: str = field(default_factory=lambda: "cuda" if torch.cuda.is_available() else "cpu")
    revision: str | None = None
    trust_remote_code: bool = False


def choose_engine(name: str) -> str:
    """`transformers` or `vllm`; `auto` is vLLM if it is installed and there is a GPU."""
    is_installed = importlib.util.find_spec("vllm") is not None
    if name == "vllm" and not is_installed:
        rule = "is 'vllm', which is not installed"
        raise ArgumentError("evaluate_engine", rule=rule, hint="run `pip install vllm`, or write 'transformers'")
    if name == "auto":
        return "vllm" if is_installed and torch.cuda.is_available() else "transformers"
    return name


def load_tokenizer(model: str, loading: Loading) -> Any:
    """Load a model's tokenizer; an adapter saved without one uses that of its base model."""
    base = adapter_base(model)
    source = base if base and not (Path(model).expanduser() / "tokenizer_config.json").is_file() else model
    options = {"revision": loading.revision, "trust_remote_code": loading.trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", **options)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def encode(tokenizer: Any, prompt: str | list[dict[str, str]]) -> list[int]:
    """Tokenize a prompt: chat messages by the chat template, text with the tokenizer's special tokens."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


class TransformersEngine:
    """Generates with transformers on one device. A batch that does not fit into memory is halved until it does."""

    def __init__(self, model: str, tokenizer: Any, loading: Loading) -> None:
        self.tokenizer, self.loading = tokenizer, loading
        options = {"revision": loading.revision, "trust_remote_code": loading.trust_remote_code}
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=loading.dtype, **options)
        self.model = loaded.to(loading.device).eval()
        self.stops = _stop_tokens(self.model.generation_config.eos_token_id, tokenizer)
        # The model's own settings, such as a repetition penalty, would make greedy decoding something else.
        self.model.generation_config = GenerationConfig(eos_token_id=self.stops, pad_token_id=tokenizer.pad_token_id)
        self._fits: int | None = None

    def complete(self, prompts: Sequence[list[int]], seeds: Sequence[int], decoding: Decoding) -> list[Completion]:
        """Generate one completion for each prompt; its seed decides what is sampled."""
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
            logger.warning("%d prompts at once do not fit into memory: continuing with %d", rows, self._fits)
            clear_device_cache(garbage_collection=True)
        return done

    def _generate(self, prompts: Sequence[list[int]], seeds: Sequence[int], decoding: Decoding) -> list[Completion]:
        batch = self.tokenizer.pad({"input_ids": list(prompts)}, return_tensors="pt", verbose=False)
        length = batch["input_ids"].shape[1]
        processors = LogitsProcessorList()
        if decoding.temperature:
            processors.append(TemperatureLogitsWarper(decoding.temperature))
            if decoding.top_p < 1:
                processors.append(TopPLogitsWarper(decoding.top_p))
            processors.append(SeededChoice(seeds, length, decoding.max_new_tokens, self.loading.device))
        with torch.inference_mode():
            output = self.model.generate(
                **batch.to(self.loading.device),
                max_new_tokens=decoding.max_new_tokens,
                do_sample=False,  # SeededChoice leaves one token to choose
                logits_processor=processors,
            )
        return [self._read(row) for row in output[:, length:].tolist()]

    def _read(self, tokens: list[int]) -> Completion:
        end = next((place for place, token in enumerate(tokens) if token in self.stops), None)
        return Completion(self.tokenizer.decode(tokens[:end], skip_special_tokens=True), end is not None)


class SeededChoice(LogitsProcessor):
    """Samples each row with its own random generator: masks all tokens but the one a uniform number selects."""

    def __init__(self, seeds: Sequence[int], prompt_length: int, max_new_tokens: int, device: str) -> None:
        self.prompt_length = prompt_length
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        rows = [torch.rand(max_new_tokens, generator=one, dtype=torch.float64) for one in generators]
        self.uniform = torch.stack(rows).to(device)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores of minus infinity for all tokens but the selected one."""
        step = input_ids.shape[1] - self.prompt_length
        # In float64: over a large vocabulary the error of a float32 sum exceeds the probability of a rare token.
        cumulative = scores.softmax(-1, dtype=torch.float64).cumsum(-1)
        mark = self.uniform[:, step : step + 1] * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, mark, right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)


class VllmEngine:
    """Generates with vLLM, which forms its own batches."""

    def __init__(self, model: str, tokenizer: Any, loading: Loading) -> None:
        from vllm import LLM
        from vllm.lora.request import LoRARequest

        base = adapter_base(model)
        options: dict[str, Any] = {"revision": loading.revision, "trust_remote_code": loading.trust_remote_code}
        if base:
            from peft import PeftConfig

            options |= {"enable_lora": True, "max_lora_rank": PeftConfig.from_pretrained(model).r}
        self.adapter = LoRARequest("adapter", 1, model) if base else None
        self.llm = LLM(model=base or model, dtype=loading.dtype, **options)
        self.stops = _stop_tokens(None, tokenizer)  # vLLM adds those of the model's generation_config

    def complete(self, prompts: Sequence[list[int]], seeds: Sequence[int], decoding: Decoding) -> list[Completion]:
        """Generate one completion for each prompt; its seed decides what is sampled."""
        from vllm import SamplingParams

        chosen = {"temperature": decoding.temperature, "top_p": decoding.top_p, "max_tokens": decoding.max_new_tokens}
        settings = [SamplingParams(**chosen, seed=seed, stop_token_ids=self.stops) for seed in seeds]
        requests = [{"prompt_token_ids": prompt} for prompt in prompts]
        outputs = self.llm.generate(requests, settings, lora_request=self.adapter, use_tqdm=False)
        return [Completion(output.outputs[0].text, output.outputs[0].finish_reason == "stop") for output in outputs]


def _stop_tokens(configured: int | list[int] | None, tokenizer: Any) -> list[int]:
    """The tokens that end a completion: those of the generation settings and the tokenizer's (end of turn)."""
    listed = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in (*listed, tokenizer.eos_token_id) if token is not None})
