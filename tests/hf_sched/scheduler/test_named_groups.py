"""`param_groups` and `MuonWithAdamW` outside the recipes: the Trainer's groups, own schedules, and exact resumes."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import hf_sched
from hf_sched.scheduler.named_groups import GroupRule
from tests.helpers.trainer import BUILTIN, OURS, PEAK, STEPS, WARMUP, cosine_floor, make, train

OWN = "hold 50% | decay"


def model_of(model_path):
    """A tiny model of three layers, whose output head is not tied to the embeddings."""
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(model_path, num_hidden_layers=3, tie_word_embeddings=False)
    return AutoModelForCausalLM.from_config(config)


def test_groups_without_rules_are_those_of_the_trainer(model_path, tmp_path):
    trainer, _ = make(model_path, tmp_path, weight_decay=0.1)
    theirs = trainer.create_optimizer().param_groups
    ours = hf_sched.param_groups(trainer.model, learning_rate=PEAK, weight_decay=0.1)
    assert [g["name"] for g in ours] == ["default", "default"]
    for group, other in zip(ours, theirs, strict=True):
        assert (group["lr"], group["weight_decay"]) == (other["lr"], other["weight_decay"])
        assert list(map(id, group["params"])) == list(map(id, other["params"]))


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("layers.1", "model.layers.1.mlp.up_proj.weight", True),
        ("layers.1", "model.layers.10.mlp.up_proj.weight", False),
        ("layers.(0-7)", "model.layers.7.mlp.up_proj.weight", True),
        ("layers.(0-7)", "model.layers.17.mlp.up_proj.weight", False),
        ("embed_tokens|lm_head", "lm_head.weight", True),
        ("proj", "model.layers.1.mlp.up_proj.weight", False),
        (r".*_proj", "model.layers.1.mlp.up_proj.weight", True),
    ],
)
def test_a_pattern_matches_whole_parts_of_a_name(pattern, name, matches):
    assert bool(GroupRule.read(pattern, "1x").regex.search(name)) == matches


def optimizers(model):
    groups = hf_sched.param_groups(model, {"mlp": "0.1x", "embed_tokens": {"schedule": OWN}}, learning_rate=PEAK)
    return torch.optim.AdamW(groups), None


def test_a_trainer_follows_own_schedules_and_rejects_them_under_a_builtin_one(model_path, tmp_path):
    _, used = train(model_path, tmp_path, optimizers=optimizers, **OURS)
    run = [cosine_floor(k) for k in range(STEPS)]
    own = hf_sched.build(OWN, num_training_steps=STEPS, num_warmup_steps=WARMUP).curve(peak=PEAK)
    for group, expected in {0: run, 2: own, 3: [0.1 * rate for rate in run]}.items():
        np.testing.assert_allclose(used[:, group], expected, rtol=1e-12)
    with pytest.raises(hf_sched.ArgumentError, match="of a parameter group needs an `lr_scheduler_type` of hf_sched"):
        train(model_path, tmp_path, optimizers=optimizers, **BUILTIN)


def test_muon_with_adamw_resumes_bit_for_bit(model_path):
    def step(model, optimizer, scheduler, times):
        tokens = torch.arange(6, 16)[None]
        for _ in range(times):
            optimizer.zero_grad()
            model(input_ids=tokens, labels=tokens).loss.backward()
            optimizer.step()
            scheduler.step()

    def fresh(model):
        groups = hf_sched.param_groups(model, {"layers.1": "0.5x"}, learning_rate=PEAK, muon_learning_rate="2x")
        optimizer = hf_sched.MuonWithAdamW(groups, betas=(0.9, 0.99))
        return optimizer, hf_sched.get_scheduler("cosine_floor", optimizer, 2, 8)

    model = model_of(model_path)
    parts = fresh(model)
    assert {group["name"]: group["initial_lr"] for group in parts[0].param_groups}["layers.1.muon"] == PEAK
    step(model, *parts, 4)
    buffer = io.BytesIO()
    torch.save([one.state_dict() for one in (model, *parts)], buffer)
    step(model, *parts, 4)
    buffer.seek(0)
    again = model_of(model_path)
    resumed = fresh(again)
    for one, state in zip((again, *resumed), torch.load(buffer, weights_only=True), strict=True):
        one.load_state_dict(state)
    step(again, *resumed, 4)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_muon_trains_matrices_of_layers_as_torch_does_alone(model_path):
    model = model_of(model_path)
    groups = hf_sched.param_groups(model, learning_rate=PEAK, weight_decay=0.1, muon_learning_rate=0.02)
    assert [group["name"] for group in groups] == ["default", "default", "muon"]
    (muon,) = [group for group in groups if group["use_muon"]]
    assert all(parameter.ndim == 2 for parameter in muon["params"]) and muon["lr"] == 0.02
    assert not {id(model.get_input_embeddings().weight), id(model.lm_head.weight)} & set(map(id, muon["params"]))
    copies = [parameter.detach().clone().requires_grad_() for parameter in muon["params"]]
    alone = torch.optim.Muon(copies, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    tokens = torch.arange(6, 16)[None]
    model(input_ids=tokens, labels=tokens).loss.backward()
    for copy, parameter in zip(copies, muon["params"], strict=True):
        copy.grad = parameter.grad.clone()
    hf_sched.MuonWithAdamW(groups).step()
    alone.step()
    assert all(torch.equal(one, other) for one, other in zip(copies, muon["params"], strict=True))


def test_layers_decay_towards_the_embeddings(model_path):
    model = model_of(model_path)
    groups = hf_sched.param_groups(model, learning_rate=1.0, decay_per_layer=0.5)
    peaks = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    last = model.config.num_hidden_layers - 1
    for number, layer in enumerate(model.model.layers):
        assert {peaks[id(parameter)] for parameter in layer.parameters()} == {0.5 ** (last - number)}
    assert peaks[id(model.model.embed_tokens.weight)] == 0.5 ** (last + 1)
    assert peaks[id(model.model.norm.weight)] == 1.0 and groups[0]["lr"] == 1.0
