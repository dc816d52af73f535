"""The names in transformers: every way in, every import order, in fresh interpreters since imports happen once."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import hf_sched

ROOT = Path(__file__).parents[3]
NAMES = set(hf_sched.available())
WITH_ROOT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
BLOCK_HF_SCHED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_sched":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
"""


def python(code: str, *, cwd: Path = ROOT, ok: bool = True) -> str:
    """Run code in a fresh interpreter; its output, or what it wrote to stderr where it should fail."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode == 0) == ok, done.stderr
    return done.stdout.strip() if ok else done.stderr.strip()


@pytest.mark.parametrize(
    "before",
    [
        "import hf_sched",
        "import transformers, hf_sched",
        "from transformers import TrainingArguments\nimport hf_sched",
        "import transformers.optimization, hf_sched",
        "import hf_sched, transformers.trainer_utils, transformers.optimization",
        # Between the enum and the table.
        "import transformers.trainer_utils, hf_sched, transformers.optimization",
        "import hf_sched, importlib\nimportlib.reload(hf_sched)\nimport transformers\nimportlib.reload(hf_sched)",
    ],
)
def test_any_order_of_imports_registers_once(before):
    code = f"""
{before}
import torch
from transformers import SchedulerType, TrainingArguments, get_scheduler
names = [member.value for member in SchedulerType]
assert len(names) == len(set(names)), names
assert {NAMES} <= set(names)
args = TrainingArguments("x", lr_scheduler_type="cosine_floor", use_cpu=True)
assert args.lr_scheduler_type is SchedulerType.COSINE_FLOOR
optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
scheduler = get_scheduler("cosine_floor", optimizer, 2, 10, {{"floor_ratio": 0.1}})
print(type(scheduler).__name__, scheduler.get_last_lr())
"""
    assert python(code) == "ScheduleLR [0.5]"


def test_every_way_to_ask_for_a_schedule(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "lr_scheduler_type: warmup_cosine\nlr_scheduler_kwargs:\n  warmup: 5%\noutput_dir: x\nuse_cpu: true\nbf16: "
        "false\n"
    )
    code = f"""
import copy, dataclasses, json
import hf_sched
from transformers import HfArgumentParser, SchedulerType, TrainingArguments
from trl import GRPOConfig, SFTConfig, TrlParser
flags = ["--output_dir", "x", "--use_cpu", "true", "--lr_scheduler_type", "cosine_restarts",
         "--lr_scheduler_kwargs", '{{"num_cycles": 2}}']
for cls in (TrainingArguments, SFTConfig, GRPOConfig):
    bf16 = {{"bf16": False}}
    args = cls("x", lr_scheduler_type="cosine_floor", lr_scheduler_kwargs={{"floor_ratio": 0.1}}, use_cpu=True, **bf16)
    # TRL's own: a GRPOConfig can be replaced only if what it worked out itself is taken back.
    taken_back = {{"generation_batch_size": None}} if cls is GRPOConfig else {{}}
    for same in (args, copy.deepcopy(args), dataclasses.replace(args, learning_rate=1.0, **taken_back)):
        assert same.lr_scheduler_type is SchedulerType.COSINE_FLOOR, same.lr_scheduler_type
        assert json.loads(same.to_json_string())["lr_scheduler_type"] == "cosine_floor"
    kwargs = '{{"floor_ratio": 0.2}}'  # JSON text, as on a command line
    args = cls("x", lr_scheduler_type="cosine_floor", lr_scheduler_kwargs=kwargs, use_cpu=True, **bf16)
    assert args.lr_scheduler_kwargs == {{"floor_ratio": 0.2}}
    assert args.set_lr_scheduler("warmup_cosine").lr_scheduler_type is SchedulerType.WARMUP_COSINE
    for parser in (HfArgumentParser(cls), TrlParser(cls)):
        (args,) = parser.parse_args_into_dataclasses([*flags, "--bf16", "false"])
        assert args.lr_scheduler_type is SchedulerType.COSINE_RESTARTS
        assert args.lr_scheduler_kwargs == {{"num_cycles": 2}}
        (offered,) = (action.choices for action in parser._actions if action.dest == "lr_scheduler_type")
        assert {NAMES} <= set(offered), offered
    (args,) = TrlParser(cls).parse_args_and_config(["--config", {str(tmp_path / "config.yaml")!r}])
    assert (args.lr_scheduler_type, args.lr_scheduler_kwargs) == (SchedulerType.WARMUP_COSINE, {{"warmup": "5%"}})
print("all")
"""
    assert python(code) == "all"


def test_a_share_of_warmup_is_read_in_every_version():
    # transformers 4 takes whole `warmup_steps` alone, and calls a share `warmup_ratio`.
    code = """
    import hf_sched
    from transformers import HfArgumentParser, TrainingArguments
    parser = HfArgumentParser(TrainingArguments)
    for given, steps in ((0.07, 8), (12, 12), (12.0, 12), (0, 0)):
        from_flags = parser.parse_args_into_dataclasses(["--output_dir", "x", "--warmup_steps", str(given)])[0]
        for args in (TrainingArguments("x", warmup_steps=given), from_flags):
            assert args.get_warmup_steps(100) == steps, (given, args.get_warmup_steps(100))
    try:
        TrainingArguments("x", warmup_steps=-0.5)
    except ValueError:
        print("refused")
    """
    assert python(code) == "refused"


def test_saved_arguments_load_everywhere(tmp_path):
    python(
        f"""
        import hf_sched, torch
        from transformers import TrainingArguments
        args = TrainingArguments("x", lr_scheduler_type="cosine_floor", learning_rate=3e-4, use_cpu=True)
        torch.save(args, {str(tmp_path / "training_args.bin")!r})
        """
    )
    load = f"""
import torch
args = torch.load({str(tmp_path / "training_args.bin")!r}, weights_only=False)
print(type(args.lr_scheduler_type).__name__, args.lr_scheduler_type == "cosine_floor", args.learning_rate)
"""
    assert python(load) == "str True 0.0003"
    assert python(BLOCK_HF_SCHED + load, cwd=tmp_path) == "str True 0.0003"
    assert python("import hf_sched" + load) == "SchedulerType True 0.0003"


def test_wrong_arguments_fail_with_the_training_arguments():
    code = """
    import hf_sched
    from transformers import TrainingArguments
    for given in (
        {"lr_scheduler_type": "cosin_floor"},
        {"lr_scheduler_type": "cosine_floor", "lr_scheduler_kwargs": {"flor_ratio": 1}},
        {"lr_scheduler_type": "cosine_floor", "lr_scheduler_kwargs": "floor_ratio=0.1"},
        {"lr_scheduler_type": "cosine_floor", "max_steps": 10, "warmup_steps": 10},
        {"lr_scheduler_type": "warmup_cosine", "max_steps": 10, "warmup_steps": 2, "lr_scheduler_kwargs": {"warmup":
        2}},
    ):
        try:
            TrainingArguments("x", use_cpu=True, **given)
        except ValueError as error:
            print(error)
    """
    messages = python(code).splitlines()
    assert len(messages) == 5
    assert "did you mean 'cosine_floor'?" in messages[0]
    assert all(name in messages[0] for name in (*NAMES, "cosine_with_min_lr", "linear"))
    assert "no argument `flor_ratio` (received 1); did you mean 'floor_ratio'?" in messages[1]
    assert "`lr_scheduler_kwargs` must be a mapping, or one in JSON, received 'floor_ratio=0.1'" in messages[2]
    assert "`num_warmup_steps` must be less than `num_training_steps` (10), received 10" in messages[3]
    assert "the warmup is given twice" in messages[4]


@pytest.mark.parametrize(
    ("module", "table"),
    [
        ("transformers.trainer_utils", "SchedulerType"),
        ("transformers.optimization", "TYPE_TO_SCHEDULER_FUNCTION"),
        ("transformers.training_args", "TrainingArguments.__post_init__"),
        ("transformers.trainer", "Trainer.set_initial_training_values"),
    ],
)
def test_a_transformers_without_the_tables_gets_nothing(module, table):
    # The module is stripped before hf_sched looks at it, as a later transformers might come without.
    code = f"""
    import sys
    import transformers.trainer_utils as trainer_utils
    kept = trainer_utils.SchedulerType
    builtin = list(kept.__members__)
    import {module} as module
    del module.{table}
    try:
        import hf_sched
    except ImportError as error:
        print(error)
    assert list(kept.__members__) == builtin, list(kept.__members__)
    assert "cosine_floor" not in kept._value2member_map_
    """
    message = python(code)
    assert message.count("\n") == 0
    assert message.startswith("hf_sched supports transformers 4.57 to 5.x, but transformers ")
    assert f"`{module.removeprefix('transformers.')}.{table}`" in message


def test_a_transformers_without_the_tables_gets_nothing_where_it_is_imported_last():
    # The hook that strips the module is registered before that of hf_sched, so it runs before.
    code = """
    from wrapt import register_post_import_hook
    register_post_import_hook(lambda m: delattr(m, "TYPE_TO_SCHEDULER_FUNCTION"), "transformers.optimization")
    import hf_sched
    try:
        import transformers.optimization
    except ImportError as error:
        print(error)
    from transformers.trainer_utils import SchedulerType
    print([member.value for member in SchedulerType if "floor" in member.value or member.value in hf_sched.available()])
    """
    message, left = python(code).splitlines()
    assert message.startswith("hf_sched supports transformers 4.57 to 5.x, but transformers ")
    assert "`optimization.TYPE_TO_SCHEDULER_FUNCTION`" in message
    assert left == "[]"


def test_a_command_line_refuses_a_wrong_name_and_offers_the_right_ones(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import hf_sched\nfrom transformers import HfArgumentParser, TrainingArguments\n"
        "HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()\n"
    )
    command = [sys.executable, str(script), "--output_dir", "x", "--lr_scheduler_type", "cosin_floor"]
    done = subprocess.run(command, cwd=ROOT, env=WITH_ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "--lr_scheduler_type" in done.stderr
    assert all(name in done.stderr for name in NAMES), done.stderr[-1500:]


def test_a_name_spelt_like_a_builtin_member_leaves_that_member_alone():
    # The member for "reduce_lr_on_plateau" is called REDUCE_ON_PLATEAU: a name of that spelling would replace it, and
    # the Trainer compares with that member.
    code = """
    import hf_sched
    from transformers import SchedulerType
    hf_sched.register("reduce_on_plateau")(lambda: [hf_sched.decay()])
    builtin, own = SchedulerType("reduce_lr_on_plateau"), SchedulerType("reduce_on_plateau")
    assert SchedulerType.REDUCE_ON_PLATEAU is builtin is not own
    names = [member.name for member in SchedulerType]
    assert len(names) == len(set(names)), names
    print(builtin.value, own.value)
    """
    assert python(code) == "reduce_lr_on_plateau reduce_on_plateau"
