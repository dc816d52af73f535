"""`hf-sched list`, `show` and `plot`: their output, errors and time."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

import hf_sched
from hf_sched.reference.description import describe
from hf_sched.schedules.registry import BUILTIN_NAMES
from tests.helpers.command_line import error_message, printed, run


def test_list_has_a_line_for_every_name() -> None:
    lines = printed("list").splitlines()
    assert [line.split()[:2] for line in lines] == [
        *([name, "hf_sched"] for name in hf_sched.available()),
        *([name, "transformers"] for name in BUILTIN_NAMES),
    ]
    assert all(len(line.split()) > 4 for line in lines)


@pytest.mark.parametrize("name", [*hf_sched.available(), *BUILTIN_NAMES])
def test_show_prints_the_whole_reference(name: str) -> None:
    reference, shown = describe(name), printed("show", name)
    assert reference.summary in shown and reference.source in shown
    for line in reference.formula.splitlines():
        assert line.strip() in shown
    for argument in reference.arguments:
        assert argument.name in shown and argument.takes in shown
    assert f"lr_scheduler_type: {name}" in shown
    assert ("optimizer step" in shown) == (name not in ("greedy", "reduce_lr_on_plateau"))


def test_show_draws_the_arguments() -> None:
    assert "in phases: warmup 50 | hold 650 | decay 300 1-sqrt" in printed("show", "wsd:decay=30%")
    assert "in phases: warmup 50 | hold 750 | decay 200 1-sqrt" in printed("show", "wsd")


def test_registered_schedules_are_listed_and_shown(tmp_path: Path) -> None:
    (tmp_path / "house_schedules.py").write_text(
        "import hf_sched\n@hf_sched.register('house_rule')\ndef house_rule():\n    'Hold the peak.'\n"
        "    return [hf_sched.hold()]\n"
    )
    script = [sys.executable, "-m", "hf_sched", "--import", "house_schedules"]
    listed, shown = (
        subprocess.run([*script, *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        for words in (["list"], ["show", "house_rule"])
    )
    assert "house_rule                 yours         Hold the peak." in listed
    assert "lr_scheduler_type: house_rule" in shown


def test_a_terminal_gets_a_line_for_each_curve() -> None:
    drawn = printed("plot", "cosine_floor", "cosine", "warmup 5% | hold", "--warmup", "10%")
    legend = [line.strip() for line in drawn.splitlines()[-3:]]
    assert legend == ["a cosine_floor", "b cosine", "c warmup 5% | hold"]  # without colors, letters mark the curves
    assert "999" in drawn


def test_a_configuration_is_drawn_with_its_own_steps_and_rate(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        "# trl sft --config run.yaml\nlearning_rate: 2.0e-4\nlr_scheduler_type: wsd\nmax_steps: 300\nwarmup_steps: 30\n"
    )
    drawn = printed("plot", config)
    assert drawn.startswith("0.0002 ┤") and "299" in drawn
    together = printed("plot", config, "cosine", "--lr", "1e-4", "--steps", "200")
    assert "0.0002 ┤" in together and "199" in together and f"a {config}" in together
    assert "`--lr` is required" in error_message("plot", config, "cosine")


def test_a_configuration_shows_its_groups_and_other_hyperparameters(tmp_path: Path) -> None:
    config, picture = tmp_path / "run.yaml", tmp_path / "run.png"
    config.write_text(
        "learning_rate: 2.0e-4\nlr_scheduler_type: wsd\nmax_steps: 300\nweight_decay: 0.1\n"
        "lr_groups: {lm_head: 0.1x, embed_tokens: {lr: 5.0e-5, schedule: hold 50% | decay}}\n"
        "schedules: {weight_decay: hold 50% | decay to 0}\n"
    )
    drawn = printed("plot", config, "--steps", 200)
    legend = [f"a {config}", f"b {config}: lm_head", f"c {config}: embed_tokens"]
    assert [line.strip() for line in drawn.splitlines() if str(tmp_path) in line] == legend
    (panel,) = re.findall(r"(?ms)^weight_decay\n +0.1 ┤.* 0 ┤.* 0 +199$", drawn)
    assert "0.0002" not in panel
    legend = [line.strip() for line in printed("plan", config).splitlines()[-3:]]
    assert legend == ["a wsd", "b lm_head", "c embed_tokens"]
    planned = json.loads(printed("plan", config, "--json"))
    own = hf_sched.build("hold 50% | decay", num_training_steps=300)
    assert planned["groups"][1]["curve"] == own.curve(peak=5e-5).tolist()
    decay = hf_sched.build("hold 50% | decay to 0", num_training_steps=300)
    assert planned["hyperparameter_curves"] == {"weight_decay": decay.curve(peak=0.1).tolist()}
    printed("plot", config, "-o", picture)
    assert matplotlib.image.imread(picture).shape[1] == 2 * 5.2 * 130


def test_pictures_are_written(tmp_path: Path) -> None:
    one, several, vector = (str(tmp_path / name) for name in ("one.png", "several.pdf", "several.svg"))
    assert printed("plot", "wsd", "--lr", "2e-5", "-o", one).strip() == f"wrote {one}"
    for path in (several, vector):
        printed("plot", "wsd", "linear", "wsd:decay=5", "--steps", "50", "-o", path)
    assert np.ptp(matplotlib.image.imread(one)[..., :3], axis=(0, 1)).min() > 0.5
    assert Path(several).stat().st_size > 4000
    assert Path(vector).read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["show", "cosin"], "must be the name of a schedule, received 'cosin'; did you mean 'cosine'?"),
        (["plot", "wsd:decya=3"], "`decya` is not an argument of wsd, received 3; did you mean 'decay'?"),
        (["plot", "wsd", "-o", "x.doc"], "Format 'doc' is not supported"),
        (["plot", "wsd", "-o", "no/such/folder/x.png"], "No such file or directory: 'no/such/folder/x.png'"),
        (["plot", "polynomial"], "`--lr` is required, because the curve of 'polynomial' depends on the learning rate"),
        (["plot", "greedy"], "`schedule` must be one whose curve is known before the run, received 'greedy'"),
        (["plot", "wsd", "--warmup", "half"], "`--warmup` must be steps (500)"),
        (["plot", "wsd", "--steps", "0"], "`num_training_steps` must be a whole number, 1 or more, received 0"),
        (["plot", "no_such.yaml"], "there is no file 'no_such.yaml'"),
        (["--import", "no_such_module", "list"], "`--import` must be a module that can be imported"),
    ],
)
def test_mistakes_end_with_one_line(words: list[str], expected: str) -> None:
    assert expected in error_message(*words)


@pytest.mark.parametrize(
    ("words", "seconds"), [(["list"], 0.3), (["show", "wsd"], 0.3), (["plot", "wsd", "-o", "wsd.png"], 2)], ids=str
)
def test_commands_are_quick(words: list[str], seconds: float, tmp_path: Path) -> None:
    """Compares the least processor time of several runs, because other work on the machine can only add to it."""
    script = (
        "import atexit, sys; from hf_sched.cli import main; "
        "atexit.register(lambda: print([n for n in ('torch', 'transformers') if n in sys.modules], file=sys.stderr)); "
        f"sys.argv = ['hf-sched', *{words!r}]; main()"
    )
    taken = [float("inf")]
    while min(taken) >= seconds and len(taken) <= 15:  # until one run has the caches to itself
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert ended.stderr.splitlines()[-1] == "[]"
    assert min(taken) < seconds


@pytest.mark.parametrize(
    ("words", "expected"),
    [("sho", ["show"]), ("show wsd", ["wsd"]), ("plot wsd cosine_with_r", ["cosine_with_restarts"])],
)
def test_shell_completion_knows_commands_and_schedules(words: str, expected: list[str]) -> None:
    typed = {"COMP_WORDS": f"hf-sched {words}", "COMP_CWORD": str(len(words.split()))}
    result = run(prog_name="hf-sched", env={"_HF_SCHED_COMPLETE": "bash_complete", **typed})
    assert [line.partition(",")[2] for line in result.output.split()] == expected
