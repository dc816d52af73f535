"""Keys: unknown, misspelt, given twice, of another trainer, of earlier versions, of other programs."""

from __future__ import annotations

import pytest

from hf_sched.check.renamed import DEPRECATED, ELSEWHERE, RENAMED, Moved, moved
from hf_sched.check.subject import Subject, arguments_of
from hf_sched.plan.training_config import KINDS, TrainingConfig
from tests.helpers.findings import assert_error, find, refused, report, report_of_text

# What each is written as now, and taken by the installed version.
NOW = {
    "warmup_ratio": (0.1, {"warmup_steps": 0.1}),
    "evaluation_strategy": ("steps", {"eval_strategy": "steps"}),
    "max_seq_length": (512, {"max_length": 512}),
    "torch_dtype": ("bfloat16", {"dtype": "bfloat16"}),
    "no_cuda": (True, {"use_cpu": True}),
    "group_by_length": (True, {"train_sampling_strategy": "group_by_length"}),
    "use_liger": (True, {"use_liger_kernel": True}),
    "per_gpu_train_batch_size": (4, {"per_device_train_batch_size": 4}),
    "dispatch_batches": (False, {"accelerator_config": {"dispatch_batches": False}}),
    "include_tokens_per_second": (True, {"include_num_input_tokens_seen": True}),
    "adafactor": (True, {"optim": "adafactor"}),
    "gradient_checkpointing_use_reentrant": (False, {"activation_checkpointing_kwargs": {"use_reentrant": False}}),
}
GONE = ("overwrite_output_dir", "logging_dir", "save_safetensors", "tokenizer", "fp16_backend", "use_mps_device")


@pytest.mark.parametrize("old", NOW)
def test_a_renamed_key_is_given_with_what_to_write(old):
    value, now = NOW[old]
    found = find(**{old: value})
    ((key, new_value),) = now.items()
    assert_error(found, old, f"write `{key}: ")
    written = str(new_value).lower() if isinstance(new_value, bool) else new_value
    assert str(written if not isinstance(new_value, dict) else next(iter(new_value))) in found.message
    assert refused(**{old: value}).startswith("dropped")
    assert refused(**now) is None
    assert not report(**now).errors


@pytest.mark.parametrize("old", GONE)
def test_a_removed_key_is_to_be_left_out(old):
    assert_error(find(**{old: True}), old, "leave it out")
    assert refused(**{old: True}).startswith("dropped")


def test_where_both_names_are_given_the_old_one_goes():
    assert_error(find(warmup_ratio=0.1, warmup_steps=0.1), "warmup_ratio", "leave it out, `warmup_steps` is given")


def test_the_advice_depends_on_the_trainer():
    assert "`max_length` limits" in find("dpo", max_prompt_length=512).message
    assert "prompts are no longer cut" in find("grpo", max_prompt_length=512).message
    assert "chat_template_path" in find("sft", chat_template="x").message


def test_no_old_key_is_an_argument_of_the_installed_version_and_all_new_ones_are():
    for key, entries in RENAMED.items():
        for entry in (entries,) if isinstance(entries, Moved) else entries:
            kinds = entry.kinds or KINDS
            assert all(key not in arguments_of(kind) for kind in kinds), key
            assert entry.to is None or any(entry.to in arguments_of(kind) for kind in kinds), key
            assert entry.to is None or not entry.kinds or all(entry.to in arguments_of(kind) for kind in kinds), key
            assert entry.to or entry.how, key


def test_deprecated_keys_and_their_successors_are_arguments():
    known = {name for kind in KINDS for name in arguments_of(kind)}
    assert {*DEPRECATED, *(entry.to for entry in DEPRECATED.values())} <= known
    assert set(ELSEWHERE.values()) <= known
    assert not ELSEWHERE.keys() & known


def test_a_deprecated_key_is_a_warning():
    found = find(gradient_checkpointing=True)
    assert (found.severity, found.key) == ("warning", "gradient_checkpointing")
    assert "activation_checkpointing: true" in found.message
    with pytest.warns(FutureWarning, match="gradient_checkpointing"):
        from trl import SFTConfig

        SFTConfig("out", gradient_checkpointing=True, use_cpu=True, bf16=False)


def test_every_advice_is_a_line_of_yaml_or_says_why_there_is_none():
    for key, entries in RENAMED.items():
        for entry in (entries,) if isinstance(entries, Moved) else entries:
            for kind in entry.kinds or KINDS:
                subject = Subject(TrainingConfig(kind, {key: 1}))
                found = moved(key, subject)
                if found:
                    assert found.advice(True).startswith(("write `", "leave it out: ")), key


def test_a_misspelt_key():
    assert_error(find(lerning_rate=1e-4), "lerning_rate", "did you mean `learning_rate`?")
    assert "lerning_rate" in refused(lerning_rate=1e-4)


def test_an_unknown_key_may_be_the_users_own():
    from hf_sched.check import check

    assert_error(find(frobnicate=1), "frobnicate", "--allow frobnicate")
    assert check(TrainingConfig("sft", {"frobnicate": 1}), allow=["frobnicate"]).ok


def test_a_key_of_another_trainer():
    assert_error(find("sft", num_generations=8), "num_generations", "is an argument of GRPO and RLOO, not of SFT")
    assert "num_generations" in refused("sft", num_generations=8)
    assert not report("grpo", num_generations=8).errors


def test_what_others_call_it():
    assert_error(find(lr=1e-4), "lr", "`learning_rate` may be what is meant")


def test_a_script_on_the_trainer_has_arguments_of_its_own_which_only_warn():
    found = find("trainer", model_name_or_path="gpt2")
    assert found.severity == "warning"
    assert_error(find("trainer", lerning_rate=1e-4), "lerning_rate", "`learning_rate`")


def test_keys_of_recipes_and_of_the_parser_are_known():
    assert not report(
        "grpo", reward_funcs=["exact_answer"], anneal_from="runs/x", env={"A": 1}, num_processes=2
    ).findings
    assert_error(find("sft", reward_funcs=["exact_answer"]), "reward_funcs", "of GRPO and RLOO")
    assert not report("grpo", reward_model_name_or_path="x").findings  # of TRL's own script


def test_keys_of_the_launcher_are_for_the_command_trl(tmp_path):
    trl, script = "# trl sft --config x.yaml\n", "# accelerate launch sft.py --config x.yaml\n"
    assert not report_of_text(trl + "num_processes: 2\n", tmp_path).findings
    (found,) = report_of_text(script + "num_processes: 2\n", tmp_path, "sft").findings
    assert_error(found, "num_processes", "is no argument of SFT")
    assert refused(num_processes=2).startswith("dropped")


def test_a_key_given_twice_is_found_with_its_lines(tmp_path):
    text = "max_steps: 10\nlearning_rate: 1.0e-4\nmax_steps: 20\nlr_scheduler_kwargs:\n  a: 1\n"
    (found,) = report_of_text(text.replace("lr_scheduler_kwargs:\n  a: 1\n", ""), tmp_path, "sft").findings
    assert_error(found, "max_steps", "2 times (lines 1, 3)")
    assert (found.line, found.value) == (3, 20)
    nested = "lr_scheduler_type: polynomial\nlr_scheduler_kwargs:\n  power: 2.0\n  power: 3.0\n"
    (found,) = report_of_text(nested, tmp_path, "sft").findings
    assert_error(found, "lr_scheduler_kwargs.power", "lines 3, 4")


def test_lines_are_those_of_the_file(tmp_path):
    text = (
        "# comment\n\nlearning_rate: 1.0e-4\nlerning_rate: 1\nlr_scheduler_type: linear\nlr_scheduler_kwargs:\n  x: 1\n"
    )
    found = report_of_text(text, tmp_path, "sft").findings
    assert [(finding.key, finding.line) for finding in found] == [("lerning_rate", 4), ("lr_scheduler_kwargs.x", 7)]


def test_lines_of_json(tmp_path):
    from hf_sched.check import check

    path = tmp_path / "config.json"
    path.write_text('{\n  "learning_rate": 1e-4,\n  "lerning_rate": 1\n}\n')
    (found,) = check(TrainingConfig.read(path, "sft")).findings
    assert found.line == 3


@pytest.mark.parametrize(
    ("program", "given"),
    [
        ("axolotl", {"base_model": "x", "datasets": [], "adapter": "lora"}),
        ("LLaMA-Factory", {"stage": "sft", "finetuning_type": "lora", "model_name_or_path": "x"}),
        ("Accelerate", {"compute_environment": "LOCAL_MACHINE", "num_machines": 1}),
        ("DeepSpeed", {"zero_optimization": {"stage": 2}}),
        ("torchtune", {"model": {"_component_": "x"}}),
    ],
)
def test_a_configuration_of_another_program_is_told_so(program, given):
    with pytest.raises(ValueError, match=program):
        report(**given)
