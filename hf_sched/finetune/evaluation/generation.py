"""Generates completions with transformers in batches, greedy or sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import find_executable_batch_size
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, set_seed

from hf_sched.finetune.evaluation.generation_cache import (
    Completion,
    GenerationCache,
    adapter_base,
    digest,
    model_digest,
)
from hf_sched.schedules.validation import ArgumentError


@dataclass(frozen=True)
class Loading:
    """How a model is loaded."""

    dtype: str = "auto"
    device: str = field(default_factory=lambda: "cuda" if torch.cuda.is_available() else "cpu")
    revision: str | None = None
    trust_remote_code: bool = False


class Generator:
    """Generates completions with a model on one device. The model is loaded when a completion is not in the cache.

    A batch that does not fit into memory is generated in smaller parts.
    """

    def __init__(self, model: str, loading: Loading, batch_size: int) -> None:
        self.name, self.loading, self.batch_size = model, loading, batch_size
        self.options = {"revision": loading.revision, "trust_remote_code": loading.trust_remote_code}
        has_tokenizer = (Path(model).expanduser() / "tokenizer_config.json").is_file()
        source = None if has_tokenizer else adapter_base(model)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(source or model, padding_side="left", **self.options)
            weights = model_digest(model, loading.revision)
        except OSError as error:
            raise ArgumentError("models", "folders or hub names of models", model, hint=str(error)) from None
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        versions = {name: version(name) for name in ("transformers", "torch")}
        self.settings = {"weights": weights, **asdict(loading), **versions}

    def encode(self, prompt: str | list[dict[str, str]]) -> list[int]:
        """Tokenize a prompt: chat messages by the chat template, text with the tokenizer's special tokens."""
        if isinstance(prompt, str):
            return list(self.tokenizer(prompt)["input_ids"])
        text = self.tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def complete(
        self, prompts: Sequence[list[int]], decoding: Mapping[str, Any], cache: GenerationCache, samples: int = 1
    ) -> list[list[Completion]]:
        """The completions of each prompt under arguments of `generate`; those in the cache are not generated again.

        A batch holds prompts of similar length, the longest first: too large a batch shows at once. Its seed follows
        from its content, so an interrupted evaluation continues with the same samples.
        """
        order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
        batches = []
        for sample, start in product(range(samples), range(0, len(order), self.batch_size)):
            numbers = order[start : start + self.batch_size]
            given = [prompts[number] for number in numbers]
            batches.append((digest([self.settings, decoding, sample, given]), numbers, given))

        def generate_missing(rows: int) -> None:
            for key, _, given in tqdm(batches, self.name, unit="batch", disable=None):
                if key not in cache.batches:
                    cache.append(key, self._generate(given, decoding, int(key[:8], 16), rows))

        find_executable_batch_size(generate_missing, starting_batch_size=self.batch_size)()
        completions: list[list[Completion]] = [[] for _ in prompts]
        for key, numbers, _ in batches:
            for number, completion in zip(numbers, cache.batches[key], strict=True):
                completions[number].append(completion)
        return completions

    @cached_property
    def model(self) -> Any:
        """The model, without its own decoding settings: a repetition penalty would make greedy decoding another."""
        model = AutoModelForCausalLM.from_pretrained(self.name, dtype=self.loading.dtype, **self.options)
        stops, own = model.generation_config.eos_token_id, self.tokenizer.eos_token_id
        stops = {*(stops if isinstance(stops, list) else [stops]), own} - {None}  # of a turn, and of a text
        model.generation_config = GenerationConfig(eos_token_id=sorted(stops), pad_token_id=self.tokenizer.pad_token_id)
        return model.to(self.loading.device).eval()

    def _generate(
        self, prompts: Sequence[list[int]], decoding: Mapping[str, Any], seed: int, rows: int
    ) -> list[Completion]:
        set_seed(seed)
        completions, stops = [], self.model.generation_config.eos_token_id
        for start in range(0, len(prompts), rows):
            part = {"input_ids": list(prompts[start : start + rows])}
            batch = self.tokenizer.pad(part, return_tensors="pt", verbose=False).to(self.loading.device)
            with torch.inference_mode():
                output = self.model.generate(**batch, **decoding)
            for tokens in output[:, batch["input_ids"].shape[1] :].tolist():
                end = next((place for place, token in enumerate(tokens) if token in stops), None)
                text = self.tokenizer.decode(tokens[:end], skip_special_tokens=True)
                completions.append(Completion(text, end is not None))
        return completions
