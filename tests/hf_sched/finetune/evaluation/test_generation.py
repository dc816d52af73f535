"""Completions of a model: greedy and sampled, of an adapter, under too little memory, and from the cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GenerationConfig, TemperatureLogitsWarper, TopPLogitsWarper

from hf_sched.finetune.evaluation.generation import Generator, Loading
from hf_sched.finetune.evaluation.generation_cache import Completion, GenerationCache, model_digest

PROMPTS = ["sort 1", "sort 52913", "sort 0000", "sort 98765432", "sort 31", "sort 777", "sort 2468"]
GREEDY = {"max_new_tokens": 12, "do_sample": False}
SAMPLED = {"max_new_tokens": 12, "do_sample": True, "temperature": 1.3, "top_p": 0.95, "top_k": 0}


def load(path: Path, batch_size: int = 7) -> Generator:
    return Generator(str(path), Loading(device="cpu"), batch_size)


def encode(generator: Generator) -> list[list[int]]:
    return [generator.encode([{"role": "user", "content": prompt}]) for prompt in PROMPTS]


def complete(generator: Generator, decoding: dict[str, Any], samples: int = 1) -> list[list[Completion]]:
    """The completions of `PROMPTS`, with an empty cache."""
    with TemporaryDirectory() as folder:
        return generator.complete(encode(generator), decoding, GenerationCache(Path(folder) / "c.jsonl"), samples)


@pytest.fixture
def generator(model_path: Path) -> Generator:
    return load(model_path)


def test_greedy_takes_the_most_probable_token_in_any_batch(generator: Generator, model_path: Path):
    found = complete(generator, GREEDY)
    assert found == complete(load(model_path, batch_size=2), GREEDY)
    stops = generator.model.generation_config.eos_token_id
    for prompt, (completion,) in zip(encode(generator), found, strict=True):
        tokens: list[int] = []
        while len(tokens) < 12 and not (tokens and tokens[-1] in stops):
            with torch.inference_mode():
                logits = generator.model(torch.tensor([prompt + tokens])).logits
            tokens.append(int(logits[0, -1].argmax()))
        text = generator.tokenizer.decode(tokens, skip_special_tokens=True)
        assert completion == Completion(text, tokens[-1] in stops)


def test_samples_follow_the_models_probabilities(model_path: Path, tmp_path: Path):
    draws = 4000
    generator = load(model_path, batch_size=draws)
    prompt = encode(generator)[0]
    with torch.inference_mode():
        scores = generator.model(torch.tensor([prompt])).logits[:, -1]
    expected = TopPLogitsWarper(0.8)(None, TemperatureLogitsWarper(0.7)(None, scores)).softmax(-1)[0]
    assert (expected == 0).any()
    decoding = {**SAMPLED, "max_new_tokens": 1, "temperature": 0.7, "top_p": 0.8}
    found = [one.text for (one,) in generator.complete([prompt] * draws, decoding, GenerationCache(tmp_path / "c"))]
    for token, probability in enumerate(expected.tolist()):
        if text := generator.tokenizer.decode([token], skip_special_tokens=True):
            assert found.count(text) / draws == pytest.approx(probability, abs=0.015 if probability else 0)


def test_samples_depend_on_their_number_and_repeat(generator: Generator):
    found = complete(generator, SAMPLED, samples=3)
    assert found == complete(generator, SAMPLED, samples=3)
    assert [of_prompt[:2] for of_prompt in found] == complete(generator, SAMPLED, samples=2)
    assert len({tuple(of_prompt[sample].text for of_prompt in found) for sample in range(3)}) == 3


def test_generation_config_of_the_model_only_adds_stop_tokens(model_path: Path, tmp_path: Path, generator: Generator):
    shutil.copytree(model_path, tmp_path / "model")
    end, (three,) = generator.tokenizer.eos_token_id, generator.tokenizer("3")["input_ids"]
    settings = GenerationConfig(repetition_penalty=5.0, do_sample=True, temperature=0.1, eos_token_id=[end])
    settings.save_pretrained(tmp_path / "model")
    assert complete(load(tmp_path / "model"), GREEDY) == complete(generator, GREEDY)
    settings.eos_token_id = [three]
    settings.save_pretrained(tmp_path / "model")
    stopping = load(tmp_path / "model")
    for (completion,), (whole,) in zip(complete(stopping, GREEDY), complete(generator, GREEDY), strict=True):
        assert completion == (Completion(whole.text.partition("3")[0], True) if "3" in whole.text else whole)


def test_batch_that_does_not_fit_is_generated_in_smaller_ones(generator: Generator, monkeypatch: pytest.MonkeyPatch):
    expected = complete(generator, GREEDY)
    generate, requested = generator.model.generate, []

    def within_three_rows(**given: Any) -> Any:
        requested.append(len(given["input_ids"]))
        if requested[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return generate(**given)

    monkeypatch.setattr(generator.model, "generate", within_three_rows)
    assert complete(generator, GREEDY) == expected
    assert requested[-3:] == [3, 3, 1]


def test_adapter_answers_like_the_merged_model(model_path: Path, tmp_path: Path, generator: Generator):
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model_path), config)
    adapted.save_pretrained(tmp_path / "adapter")  # without a tokenizer: it is the base's
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    generator.tokenizer.save_pretrained(tmp_path / "merged")
    answers = [complete(load(tmp_path / folder), GREEDY) for folder in ("adapter", "merged")]
    assert answers[0] == answers[1] != complete(generator, GREEDY)
    assert len({model_digest(str(path)) for path in (tmp_path / "adapter", tmp_path / "merged", model_path)}) == 3


def test_cache_reads_what_it_wrote_and_drops_an_incomplete_line(tmp_path: Path):
    path, batches = tmp_path / "of" / "e.jsonl", {"a": [Completion("1\n2 ü", True)], "b": [Completion("", False)]}
    for key, completions in batches.items():
        GenerationCache(path).append(key, completions)
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        cache = GenerationCache(path)
        assert cache.batches.items() <= batches.items() and "b" not in cache.batches
        cache.append("b", batches["b"])
        assert GenerationCache(path).batches == {**cache.batches, "b": batches["b"]}


def test_model_digest_follows_weights_and_base(model_path: Path, tmp_path: Path):
    known = model_digest(str(model_path))
    copied = shutil.copytree(model_path, tmp_path / "copied")
    (copied / "evaluation.json").write_text("{}")
    assert model_digest(str(copied)) == known

    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(copied)}))
    before = model_digest(str(adapter))
    weights = load_file(copied / "model.safetensors")
    name = max(weights)
    weights[name] = weights[name] + torch.zeros_like(weights[name]).index_fill_(0, torch.tensor([0]), 1e-3)
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert model_digest(str(copied)) != known and model_digest(str(adapter)) != before
