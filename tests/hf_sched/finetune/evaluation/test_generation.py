"""Completions do not depend on the batch that they are made in; sampled ones have the model's own probabilities."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
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
from hf_sched.finetune.evaluation.generation_cache import Completion, identity

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
def test_a_batch_gives_what_each_prompt_gives_alone(engine_and_prompts, decoding):
    engine, prompts = engine_and_prompts
    seeds = [100 + number for number in range(len(prompts))]
    together = engine.complete(prompts, seeds, decoding)
    alone = [engine.complete([prompt], [seed], decoding)[0] for prompt, seed in zip(prompts, seeds, strict=True)]
    assert together == alone
    if decoding is SAMPLED:
        assert len({completion.text for completion in together}) > 3
        assert engine.complete(prompts, seeds[::-1], decoding) != together


def test_greedy_is_the_most_probable_token_at_each_step(engine_and_prompts):
    engine, prompts = engine_and_prompts
    for prompt, completion in zip(prompts, engine.complete(prompts, [0] * len(prompts), GREEDY), strict=True):
        tokens: list[int] = []
        while len(tokens) < 12 and (not tokens or tokens[-1] not in engine.stops):
            with torch.inference_mode():
                logits = engine.model(torch.tensor([prompt + tokens])).logits
            tokens.append(int(logits[0, -1].argmax()))
        assert completion == engine._read(tokens)


def test_samples_have_the_models_probabilities():
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


def test_what_ends_a_completion_is_no_part_of_it(engine_and_prompts):
    engine, _ = engine_and_prompts
    stop, (three,) = engine.tokenizer.eos_token_id, engine.tokenizer("3")["input_ids"]
    assert engine._read([three, three, stop, engine.tokenizer.pad_token_id]) == Completion("33", True)
    assert engine._read([three, three]) == Completion("33", False)


def test_the_models_own_generation_settings_do_not_count_but_for_what_stops_it(
    model_path, tmp_path, engine_and_prompts
):
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


def test_a_batch_that_does_not_fit_is_halved_until_it_does(engine_and_prompts, monkeypatch):
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
    with pytest.warns(UserWarning, match="7 prompts at once do not fit into memory: going on with 3"):
        assert engine.complete(prompts, seeds, SAMPLED) == expected
    assert engine.complete(prompts, seeds, SAMPLED) == expected
    assert requested == [7, 3, 3, 1, 3, 3, 1], "once is enough to learn it"

    monkeypatch.setattr(engine.model, "generate", lambda **given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.complete(prompts, seeds, GREEDY)


def test_an_adapter_answers_as_the_model_that_it_is_merged_into(model_path, tmp_path, engine_and_prompts):
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
    assert len({identity(str(path)) for path in (tmp_path / "adapter", tmp_path / "merged", model_path)}) == 3


def test_text_is_a_prompt_too(engine_and_prompts):
    engine, _ = engine_and_prompts
    assert encode(engine.tokenizer, "sort 12") == engine.tokenizer("sort 12")["input_ids"]


def test_an_engine_that_is_not_there_is_refused():
    assert choose_engine("transformers") == choose_engine("auto") == "transformers"
    with pytest.raises(ValueError, match="`engine` is 'vllm', which is not installed: `pip install vllm`"):
        choose_engine("vllm")
    with pytest.raises(ValueError, match="`engine` must be one of auto, transformers, vllm, received 'tgi'"):
        choose_engine("tgi")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_new_tokens": 0}, "`max_new_tokens` must be above 0, received 0"),
        ({"temperature": -1.0}, "`temperature` must not be negative, received -1.0"),
        ({"top_p": 0.0}, "`top_p` must be above 0 and at most 1, received 0.0"),
    ],
)
def test_decoding_that_cannot_be_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Decoding(**given)
