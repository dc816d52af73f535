"""Real trainings under DeepSpeed on CPU: both ways to step the schedule, `scheduler` blocks, and resuming."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.extras import require
from tests.helpers.trainer import PEAK, STEPS, WARMUP, builtin_cosine, cosine_floor

ROOT = Path(__file__).parents[3]
ZERO2 = {
    "zero_optimization": {"stage": 2},
    "zero_allow_untested_optimizer": True,
    **{key: "auto" for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")},
}
# With this block DeepSpeed makes the optimizer, and steps the schedule in `backward`.
OWN_OPTIMIZER = {"optimizer": {"type": "AdamW", "params": {"lr": "auto", "torch_adam": True}}}
OWN_SCHEDULER = {"scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": "auto"}}}
RUN = {"max_steps": STEPS, "warmup_steps": WARMUP, "learning_rate": PEAK, "lr_scheduler_type": "cosine_floor"}
AT = 6
needs_compiler = pytest.mark.skipif(not shutil.which("c++"), reason="DeepSpeed compiles an operator when first used")


def train(model_path, folder, runs, *, processes=1, file=ZERO2, **environment):
    """Train one run after another; the results in order."""
    (folder / "zero.json").write_text(json.dumps(file))
    given = {"deepspeed": str(folder / "zero.json")} if not environment else {}
    (folder / "runs.json").write_text(json.dumps([{**given, **RUN, **run} for run in runs]))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes]
    script = ["tests/helpers/launchers/train_under_deepspeed.py", model_path, folder / "runs.json", folder / "out.json"]
    env = {**os.environ, "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT), **environment}
    command = list(map(str, [*launch, *script]))
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return json.loads((folder / "out.json").read_text())


@pytest.mark.parametrize("source", ["arguments", pytest.param("launcher", marks=pytest.mark.slow)])
def test_scheduler_block_is_rejected_before_a_model_is_loaded(tmp_path, source):
    require("deepspeed")
    environment = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(tmp_path / "zero.json")}
    runs = [{"output_dir": str(tmp_path / "a"), "lr_scheduler_type": name} for name in ("cosine_floor", "linear")]
    given = environment if source == "launcher" else {}
    ours, builtin = train("nowhere", tmp_path, runs, file={**ZERO2, **OWN_SCHEDULER}, **given)
    assert ours["error"] == (
        "ValueError: `lr_scheduler_type` is 'cosine_floor', but the DeepSpeed configuration has a `scheduler` block "
        "('WarmupLR'), which overrides it; delete that block"
    )
    assert builtin["error"].startswith("OSError")  # transformers' own names are left to DeepSpeed


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("file", [ZERO2, ZERO2 | OWN_OPTIMIZER], ids=["the Trainer steps", "DeepSpeed steps"])
def test_run_and_its_resumes_train_on_the_chosen_curve(model_path, tmp_path, file, processes):
    checkpoint = {"resume": str(tmp_path / "whole" / f"checkpoint-{AT}")}
    changed = {"learning_rate": PEAK / 2, **checkpoint}
    builtin = {"lr_scheduler_type": "cosine", **checkpoint}
    keep, replace = ({"lr_scheduler_kwargs": {"on_resume": choice}} for choice in ("keep", "replace"))
    runs = {
        "whole": {"save_strategy": "steps", "save_steps": AT},
        "resumed": checkpoint,
        "refused": changed,
        "replaced": {**changed, **replace},
        "builtin": builtin,
        "builtin, keep": {**builtin, **keep},
        "builtin, keep, longer": {**builtin, **keep, "max_steps": STEPS + 3},
        "builtin, replace": {**builtin, **replace},
    }
    given = [{"output_dir": str(tmp_path / name), **run} for name, run in runs.items()]
    found = dict(zip(runs, train(model_path, tmp_path, given, processes=processes, file=file), strict=True))
    assert found["whole"]["world_size"] == processes
    assert (found["whole"]["wrapped"] == "DeepSpeedSchedulerWrapper") == ("optimizer" in file)
    for name, curve, first, stop in (
        ("whole", cosine_floor, 0, STEPS),
        ("resumed", cosine_floor, AT, STEPS),
        ("replaced", lambda k: cosine_floor(k, peak=PEAK / 2), AT, STEPS),
        ("builtin, keep", cosine_floor, AT, STEPS),
        ("builtin, keep, longer", cosine_floor, AT, STEPS + 3),
        ("builtin, replace", builtin_cosine, AT, STEPS),
    ):
        assert "used" in found[name], (name, found[name])
        steps = np.array(found[name]["used"]).reshape(stop - first, -1)  # ZeRO steps one group after another
        np.testing.assert_array_equal(steps.min(1), steps.max(1))
        np.testing.assert_allclose(steps[:, 0], [curve(k) for k in range(first, stop)], rtol=1e-12, err_msg=name)
    assert "was trained under another schedule" in found["refused"]["error"]
    assert "cosine of transformers" in found["builtin"]["error"]
