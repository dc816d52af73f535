"""Generation does not depend on the batch, samples follow the model's probabilities, and completions are cached."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GenerationConfig, TemperatureLogitsWarper, TopPLogitsWarper

from hf_sched.finetune.evaluation.generation import (
    Decoding,
    Loading,
    SeededChoice,
    TransformersEngine,
    choose_engine,
    encode,
    load_tokenizer,
)
from hf_sched.finetune.evaluation.generation_cache import Completion, GenerationCache, model_digest

PROMPTS = ["sort 1", "sort 52913", "sort 0000", "sort 98765432", "sort 31", "sort 777", "sort 2468"]
GREEDY = Decoding(max_new_tokens=12)
SAMPLED = Decoding(max_new_tokens=12, temperature=1.3, top_p=0.95)


def load(path: Path | str) -> tuple[TransformersEngine, list[list[int]]]:
    loading = Loading(device="cpu")
    tokenizer = load_tokenizer(str(path), loading)
    encoded = [encode(tokenizer, [{"role": "user", "content": prompt}]) for prompt in PROMPTS]
    return TransformersEngine(str(path), tokenizer, loading), encoded


@pytest.fixture
def engine_and_prompts(model_path: Path) -> tuple[TransformersEngine, list[list[int]]]:
    return load(model_path)


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_completion_does_not_depend_on_the_batch(engine_and_prompts, decoding):
    engine, prompts = engine_and_prompts
    seeds = [100 + number for number in range(len(prompts))]
    together = engine.complete(prompts, seeds, decoding)
    alone = [engine.complete([prompt], [seed], decoding)[0] for prompt, seed in zip(prompts, seeds, strict=True)]
    assert together == alone
    if decoding is SAMPLED:
        assert len({completion.text for completion in together}) > 3
        assert engine.complete(prompts, seeds[::-1], decoding) != together


def test_greedy_takes_the_most_probable_token(engine_and_prompts):
    engine, prompts = engine_and_prompts
    for prompt, completion in zip(prompts, engine.complete(prompts, [0] * len(prompts), GREEDY), strict=True):
        tokens: list[int] = []
        while len(tokens) < 12 and (not tokens or tokens[-1] not in engine.stops):
            with torch.inference_mode():
                logits = engine.model(torch.tensor([prompt + tokens])).logits
            tokens.append(int(logits[0, -1].argmax()))
        assert completion == engine._read(tokens)


def test_samples_follow_the_models_probabilities():
    logits = torch.tensor([2.0, 0.5, -1.0, 1.0, -torch.inf, 0.0])
    draws = 20_000
    scores = logits.repeat(draws, 1)
    ids = torch.zeros(draws, 3, dtype=torch.long)
    choose = SeededChoice(range(draws), prompt_length=3, max_new_tokens=2, device="cpu")
    found = choose(ids, scores).argmax(-1)
    shares = torch.bincount(found, minlength=6) / draws
    torch.testing.assert_close(shares, logits.softmax(-1), atol=0.015, rtol=0)
    assert shares[4] == 0

    cold = TopPLogitsWarper(0.8)(ids, TemperatureLogitsWarper(0.7)(ids, scores))
    shares = torch.bincount(choose(ids, cold).argmax(-1), minlength=6) / draws
    torch.testing.assert_close(shares, cold[0].softmax(-1), atol=0.015, rtol=0)
    assert (shares > 0).sum() == 2
    # The next token is drawn by another number.
    later = choose(torch.zeros(draws, 4, dtype=torch.long), scores).argmax(-1)
    assert 0.2 < (later == found).float().mean() < 0.6


def test_stop_token_is_not_part_of_the_completion(engine_and_prompts):
    engine, _ = engine_and_prompts
    stop, (three,) = engine.tokenizer.eos_token_id, engine.tokenizer("3")["input_ids"]
    assert engine._read([three, three, stop, engine.tokenizer.pad_token_id]) == Completion("33", True)
    assert engine._read([three, three]) == Completion("33", False)


def test_generation_config_of_the_model_only_adds_stop_tokens(model_path, tmp_path, engine_and_prompts):
    engine, prompts = engine_and_prompts
    shutil.copytree(model_path, tmp_path / "model")
    (three,) = engine.tokenizer("3")["input_ids"]
    settings = GenerationConfig(
        repetition_penalty=5.0, do_sample=True, temperature=0.1, eos_token_id=[engine.tokenizer.eos_token_id]
    )
    settings.save_pretrained(tmp_path / "model")
    penalized, _ = load(tmp_path / "model")
    seeds = [0] * len(prompts)
    assert penalized.complete(prompts, seeds, GREEDY) == engine.complete(prompts, seeds, GREEDY)

    settings.eos_token_id = [three]
    settings.save_pretrained(tmp_path / "model")
    stopping, _ = load(tmp_path / "model")
    assert set(stopping.stops) == {three, engine.tokenizer.eos_token_id}


def test_batch_that_does_not_fit_is_halved(engine_and_prompts, monkeypatch, caplog):
    engine, prompts = engine_and_prompts
    seeds = list(range(len(prompts)))
    expected = engine.complete(prompts, seeds, SAMPLED)
    generate, requested = engine.model.generate, []

    def within_three_rows(**given):
        requested.append(len(given["input_ids"]))
        if requested[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return generate(**given)

    monkeypatch.setattr(engine.model, "generate", within_three_rows)
    assert engine.complete(prompts, seeds, SAMPLED) == expected
    assert "7 prompts at once do not fit into memory: continuing with 3" in caplog.text
    assert engine.complete(prompts, seeds, SAMPLED) == expected
    assert requested == [7, 3, 3, 1, 3, 3, 1], "once is enough to learn it"

    monkeypatch.setattr(engine.model, "generate", lambda **given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.complete(prompts, seeds, GREEDY)


def test_adapter_answers_like_the_merged_model(model_path, tmp_path, engine_and_prompts):
    engine, prompts = engine_and_prompts
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model_path), config)
    adapted.save_pretrained(tmp_path / "adapter")  # without a tokenizer: it is the base's
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    engine.tokenizer.save_pretrained(tmp_path / "merged")

    answers = []
    for folder in ("adapter", "merged"):
        of_folder, _ = load(tmp_path / folder)
        answers.append(of_folder.complete(prompts, range(len(prompts)), SAMPLED))
    assert answers[0] == answers[1] != engine.complete(prompts, range(len(prompts)), SAMPLED)
    assert len({model_digest(str(path)) for path in (tmp_path / "adapter", tmp_path / "merged", model_path)}) == 3


def test_engine_that_is_not_installed_is_an_error():
    assert choose_engine("transformers") == choose_engine("auto") == "transformers"
    with pytest.raises(ValueError, match="`evaluate_engine` is 'vllm', which is not installed; run `pip install vllm`"):
        choose_engine("vllm")


# The cache of completions.


SETTINGS = {"model": "m", "decoding": "greedy", "weights": "w", "max_new_tokens": 10}
DONE = [((0, 0), Completion("1\n2 ü", True)), ((1, 0), Completion("", False))]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    GenerationCache(tmp_path / "of" / "e.jsonl", SETTINGS).append(DONE)
    return tmp_path / "of" / "e.jsonl"


def test_cache_reads_what_it_wrote_and_drops_an_incomplete_line(path: Path):
    whole = path.read_bytes()
    assert whole.count(b'"settings"') == 1 and len(whole.splitlines()) == 3
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        cache = GenerationCache(path, SETTINGS)
        assert cache.done == dict(DONE[: max(whole[:end].count(b"\n") - 1, 0)])
        cache.append(DONE)
        assert GenerationCache(path, SETTINGS).done == dict(DONE)


@pytest.mark.parametrize("line", ["not json", "[]", '{"of": 1}', '{"settings": {}}', "null"])
def test_file_that_is_not_a_cache_is_an_error(path: Path, line: str):
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=rf"line 4 of '{path}' was not written by an evaluation: move the file away"):
        GenerationCache(path, SETTINGS)


def test_other_settings_start_anew_and_lose_nothing(path: Path):
    other = GenerationCache(path, {**SETTINGS, "weights": "v"})
    assert other.done == {}
    other.append([((0, 0), Completion("other", True))])
    assert GenerationCache(path, SETTINGS).done == dict(DONE)


def test_model_digest_follows_weights_template_and_base(model_path: Path, tmp_path: Path):
    known = model_digest(str(model_path))
    copied = shutil.copytree(model_path, tmp_path / "copied")
    (copied / "evaluation.json").write_text("{}")
    (copied / "trainer_state.json").write_text("{}")
    assert model_digest(str(copied)) == known

    weights = load_file(copied / "model.safetensors")
    name = max(weights)
    weights[name] = weights[name] + torch.zeros_like(weights[name]).index_fill_(0, torch.tensor([0]), 1e-3)
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert model_digest(str(copied)) != known

    template = shutil.copytree(model_path, tmp_path / "template")
    (template / "chat_template.jinja").write_text("{{ messages }}")
    assert model_digest(str(template)) != known

    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(copied)}))
    known = model_digest(str(adapter))
    (copied / "model.safetensors").write_bytes(b"trained again")
    assert model_digest(str(adapter)) != known
