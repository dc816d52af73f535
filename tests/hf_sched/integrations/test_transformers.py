"""The names in transformers: every spelling, every import order, and hooks that cannot attach."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

import hf_sched
from hf_sched.integrations import builtin_schedules
from tests.helpers.extras import MISSING, require
from tests.helpers.fresh_python import FreshPython

NAMES = set(hf_sched.available())


@pytest.fixture(scope="module")
def with_torch():
    """An interpreter that has imported torch, but not transformers."""
    with closing(FreshPython("import torch, huggingface_hub, accelerate")) as fresh:
        yield fresh


@pytest.fixture(scope="module")
def with_trainer():
    """An interpreter that has imported transformers and trl, if it is installed, but not hf_sched."""
    imports = "import transformers.trainer, transformers.models.llama.modeling_llama"
    imports += "" if "trl" in MISSING else ", trl.trainer.grpo_config"
    with closing(FreshPython(f"{imports}\nassert 'hf_sched' not in __import__('sys').modules")) as fresh:
        yield fresh


@pytest.mark.parametrize(
    "before",
    [
        "import hf_sched",
        "from transformers import TrainingArguments\nimport hf_sched",
        # Between the enum and the table.
        "import transformers.trainer_utils, hf_sched, transformers.optimization",
        "import hf_sched, importlib\nimportlib.reload(hf_sched)\nimport transformers\nimportlib.reload(hf_sched)",
    ],
)
def test_any_order_of_imports_registers_once(with_torch, before):
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
    assert with_torch(code) == "ScheduleLR [0.5]"


def test_every_spelling_in_arguments_parsers_and_yaml(with_trainer, tmp_path):
    require("trl")
    (tmp_path / "config.yaml").write_text(
        "lr_scheduler_type: warmup_cosine\nlr_scheduler_kwargs:\n  warmup: 5%\n"
        "output_dir: x\nuse_cpu: true\nbf16: false\n"
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
    # A GRPOConfig can be replaced only without the value that it derived itself.
    derived = {{"generation_batch_size": None}} if cls is GRPOConfig else {{}}
    for same in (args, copy.deepcopy(args), dataclasses.replace(args, learning_rate=1.0, **derived)):
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
        (choices,) = (action.choices for action in parser._actions if action.dest == "lr_scheduler_type")
        assert {NAMES} <= set(choices), choices
    (args,) = TrlParser(cls).parse_args_and_config(["--config", {str(tmp_path / "config.yaml")!r}])
    assert (args.lr_scheduler_type, args.lr_scheduler_kwargs) == (SchedulerType.WARMUP_COSINE, {{"warmup": "5%"}})
print("all")
"""
    assert with_trainer(code) == "all"


@pytest.mark.parametrize(
    ("text", "curve"),
    [
        ("wsd:decay=30%,floor_ratio=0.1", "warmup 10 | hold 60 | decay 30 1-sqrt; floor 0.1"),
        ("warmup 5% | hold | decay 20% 1-sqrt", "warmup 5 | hold 75 | decay 20 1-sqrt"),
        ("cosine_with_min_lr:min_lr=1e-1", None),
    ],
)
def test_one_text_with_arguments_is_accepted_wherever_a_name_is(with_trainer, tmp_path, text, curve):
    require("trl")
    (tmp_path / "config.yaml").write_text(json.dumps({"lr_scheduler_type": text, "use_cpu": True, "bf16": False}))
    warmup = 0 if "|" in text else 10
    code = f"""
import copy, dataclasses, json, pickle
import hf_sched
import torch
from transformers import HfArgumentParser, SchedulerType, TrainingArguments, get_scheduler
from trl import SFTConfig, TrlParser
text = {text!r}
member = SchedulerType(text)
assert member is SchedulerType(text) and member.value == text == json.loads(json.dumps(member))
assert text in str(member) and text in repr(member)
assert member not in list(SchedulerType)  # which are the choices of a parser
assert pickle.loads(pickle.dumps(member)) == text
flags = ["--output_dir", "x", "--use_cpu", "true", "--bf16", "false", "--lr_scheduler_type", text]
made = [SFTConfig("x", lr_scheduler_type=text, use_cpu=True, bf16=False)]
made += [copy.deepcopy(made[0]), dataclasses.replace(made[0], learning_rate=1.0), pickle.loads(pickle.dumps(made[0]))]
made += [TrainingArguments("x", use_cpu=True).set_lr_scheduler(text)]
made += [parser(SFTConfig).parse_args_into_dataclasses(flags)[0] for parser in (HfArgumentParser, TrlParser)]
made += TrlParser(SFTConfig).parse_args_and_config(["--config", {str(tmp_path / "config.yaml")!r}])
for args in made:
    assert args.lr_scheduler_type is member and not args.lr_scheduler_kwargs, args
    assert args.to_dict()["lr_scheduler_type"] == text == json.loads(args.to_json_string())["lr_scheduler_type"]
    assert text in str(args)
rates = []
for get in (get_scheduler, hf_sched.get_scheduler):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = get(text, optimizer, num_warmup_steps={warmup}, num_training_steps=100)
    rates.append([])
    for _ in range(100):
        rates[-1] += [group["lr"] for group in optimizer.param_groups]
        optimizer.step(), scheduler.step()
assert rates[0] == rates[1]
print(json.dumps(rates[0]))
"""
    used = json.loads(with_trainer(code))
    if curve:
        assert used == hf_sched.Schedule.parse(curve).curve(peak=1.0).tolist()
    else:
        run = {"num_training_steps": 100, "num_warmup_steps": warmup}
        assert used == builtin_schedules.curve("cosine_with_min_lr", {"min_lr": 0.1}, **run).tolist()


def test_fractional_warmup_steps_are_accepted_in_every_version(with_trainer):
    # transformers 4 accepts whole `warmup_steps` only, and calls a fraction `warmup_ratio`.
    code = """
    import hf_sched
    from transformers import HfArgumentParser, TrainingArguments
    parser = HfArgumentParser(TrainingArguments)
    for given, steps in ((0.07, 8), (12, 12), (12.0, 12), (0, 0)):
        (parsed,) = parser.parse_args_into_dataclasses(["--output_dir", "x", "--warmup_steps", str(given)])
        for args in (TrainingArguments("x", warmup_steps=given), parsed):
            assert args.get_warmup_steps(100) == steps, (given, args.get_warmup_steps(100))
    try:
        TrainingArguments("x", warmup_steps=-0.5)
    except ValueError:
        print("rejected")
    """
    assert with_trainer(code) == "rejected"


@pytest.mark.parametrize("text", ["cosine_floor", "wsd:decay=30%", "hold | decay 20%", "inverse_sqrt:timescale=100"])
def test_saved_arguments_load_with_and_without_hf_sched(with_trainer, tmp_path, text):
    file = str(tmp_path / "training_args.bin")
    make = f'TrainingArguments("x", lr_scheduler_type={text!r}, learning_rate=3e-4, use_cpu=True)'
    with_trainer(f"import hf_sched, torch\nfrom transformers import TrainingArguments\ntorch.save({make}, {file!r})")
    load = f"""
import torch
args = torch.load({file!r}, weights_only=False)
print(type(args.lr_scheduler_type).__name__, args.lr_scheduler_type == {text!r}, args.learning_rate)
"""
    assert with_trainer("import sys\nsys.modules['hf_sched'] = None" + load) == "str True 0.0003"
    assert with_trainer("import hf_sched" + load) == "SchedulerType True 0.0003"


def test_previous_setstate_of_training_arguments_still_runs(with_trainer):
    code = """
    import copy
    from transformers import TrainingArguments
    TrainingArguments.__setstate__ = lambda self, state: self.__dict__.update(state, restored_by="previous")
    import hf_sched
    args = copy.copy(TrainingArguments("x", lr_scheduler_type="cosine_floor", use_cpu=True))
    print(args.restored_by, type(args.lr_scheduler_type).__name__)
    """
    assert with_trainer(code) == "previous SchedulerType"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lr_scheduler_type": "cosin_floor"}, ["did you mean 'cosine_floor'?", "linear", *NAMES]),
        ({"lr_scheduler_type": "wsd:dekay=30%"}, ["`dekay`", "did you mean 'decay'?"]),
        ({"lr_scheduler_type": "inverse_sqrt:timscale=9"}, ["`timscale`", "did you mean 'timescale'?"]),
        ({"lr_scheduler_type": "reduce_lr_on_plateau:factor=0.5"}, ["requires an eval strategy"]),
        ({"lr_scheduler_type": "wsd:decay=3", "lr_scheduler_kwargs": {"decay": 3}}, ["`decay` is given twice"]),
        ({"lr_scheduler_type": "cosine:num_cycles=2", "lr_scheduler_kwargs": {"num_cycles": 1}}, ["is given twice"]),
        ({"lr_scheduler_type": ["hold", "decay 20%"]}, ["`lr_scheduler_type` must be text", "['hold', 'decay 20%']"]),
        ({"lr_scheduler_kwargs": {"flor_ratio": 1}}, ["`flor_ratio`", "did you mean 'floor_ratio'?"]),
        ({"lr_scheduler_kwargs": "floor_ratio=0.1"}, ["`lr_scheduler_kwargs` must be a mapping, or one in JSON"]),
        ({"warmup_steps": 10}, ["`num_warmup_steps` must be less than `num_training_steps` (10)"]),
        ({"lr_scheduler_type": "warmup_cosine", "lr_scheduler_kwargs": {"warmup": 2}}, ["sets a second warmup"]),
    ],
)
def test_training_arguments_reject_wrong_schedule_arguments(given, words):
    from transformers import TrainingArguments

    with pytest.raises(ValueError) as caught:
        defaults = {"lr_scheduler_type": "cosine_floor", "max_steps": 10, "warmup_steps": 2, "use_cpu": True}
        TrainingArguments("x", **defaults | given)
    assert all(word in str(caught.value) for word in words), caught.value


# Hooks that cannot attach. The name is removed before hf_sched looks for it, and put back for the Trainer, which needs
# it: a later transformers would do the same under another name.
WITHOUT = """
import sys
from operator import attrgetter
owner, _, name = {name!r}.rpartition(".")
owner = attrgetter(owner)(sys.modules[{module!r}]) if owner else sys.modules[{module!r}]
kept = vars(owner)[name]
delattr(owner, name)
"""
TRAIN = """
import json, logging
warned = []
handler = logging.Handler()
handler.emit = lambda record: warned.append(record.getMessage())
logging.getLogger("hf_sched").addHandler(handler)
import hf_sched
setattr(owner, name, kept)
from tests.helpers.trainer import train
_, used = train({model!r}, {folder!r}, lr_scheduler_type="cosine_floor", lr_scheduler_kwargs={{"floor_ratio": 0.2}})
print(json.dumps([warned, used[:, 0].tolist()]))
"""
EPOCHS, BUILTIN = "durations in epochs (`1ep`), samples and tokens", "`on_resume` with transformers' own schedules"


@pytest.mark.parametrize(
    ("module", "name", "feature"),
    [
        ("training_args", "TrainingArguments.__post_init__", "the check of schedule arguments in TrainingArguments"),
        ("training_args", "SchedulerType", "restoring `lr_scheduler_type` from `training_args.bin`"),
        ("trainer", "Trainer.set_initial_training_values", EPOCHS),
        ("trainer", "Trainer.create_scheduler", BUILTIN),
        ("trainer", "Trainer.train", f"{BUILTIN} and the learning-rate guard"),
        ("trainer", "get_scheduler", "layer-wise optimizers (GaLore, APOLLO) under the schedules of hf_sched"),
        ("trainer", "DEFAULT_CALLBACKS", "the learning-rate guard"),
        ("trainer", "Trainer.log", "the log lines of LearningRateLog"),
    ],
)
def test_missing_name_turns_off_only_its_features_with_one_warning(
    with_trainer, model_path, tmp_path, module, name, feature
):
    given = {"module": f"transformers.{module}", "name": name, "model": str(model_path), "folder": str(tmp_path)}
    printed = with_trainer((WITHOUT + TRAIN).format(**given))
    (warning,), used = json.loads(printed.splitlines()[-1])
    assert warning.startswith(f"hf_sched: {feature} ")  # in transformers 4 one more feature needs `__post_init__`
    assert warning.endswith(f"has no attribute '{name.rpartition('.')[2]}'")
    curve = hf_sched.build("cosine_floor", num_training_steps=12, num_warmup_steps=3, floor_ratio=0.2).curve(peak=1e-2)
    assert used == curve.tolist()


@pytest.mark.parametrize(
    ("module", "name"), [("trainer_utils", "SchedulerType"), ("optimization", "TYPE_TO_SCHEDULER_FUNCTION")]
)
def test_missing_enum_or_table_is_an_import_error(with_trainer, module, name):
    code = WITHOUT + "try:\n    import hf_sched\nexcept ImportError as error:\n    print(error)"
    message = with_trainer(code.format(module=f"transformers.{module}", name=name))
    assert message.startswith("hf_sched supports transformers 4.57 to 5.x, but transformers ")
    assert f"has no `{module}.{name}`" in message
