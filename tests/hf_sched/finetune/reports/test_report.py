"""Reports on runs as they were left: finished, resumed, killed, of another Trainer, with hostile text in them."""

from __future__ import annotations

import json
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import TrainingArguments

import hf_sched
from hf_sched._run_files import LEARNING_RATES
from hf_sched.finetune.evaluation.generation_cache import Completion
from hf_sched.finetune.evaluation.metrics import score_greedy
from hf_sched.finetune.reports.panels import panels_of_run
from hf_sched.finetune.reports.rendering import code, text, to_html
from hf_sched.finetune.reports.run_folder import load_runs
from hf_sched.plots import figures as plotting
from tests.helpers.command_line import error_message, printed
from tests.helpers.recipes import BASE, COMMON, ONE_PROCESS, finish, run_main
from tests.helpers.trainer import make

EVIL = "<script>alert(1)</script> | ![x](http://evil.example/a.png) [y](javascript:z) `<b>` **bold** \\| &lt;i&gt; $x$"
TOKEN = "hf_" + "abcdefgh" * 4
WITHOUT_WEIGHTS = shutil.ignore_patterns("*.safetensors", "checkpoint-*")


@pytest.fixture(scope="module")
def sft(task: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8 steps that was resumed at step 4 with another learning rate, each part with a token."""
    folder = tmp_path_factory.mktemp("runs") / "sft"
    places = {"model_name_or_path": task / "model", "dataset_name": task / "sft", "output_dir": folder}
    given = {"lr_scheduler_type": "cosine_floor", "max_steps": 8, "save_strategy": "steps", "save_steps": 4}
    arguments = {key: str(value) for key, value in places.items()} | {**COMMON, **BASE["sft"], **given}
    folder.with_suffix(".yaml").write_text(yaml.safe_dump(arguments))
    command = ["--config", str(folder.with_suffix(".yaml")), "--hub_token", TOKEN]
    finish(ONE_PROCESS, ["recipes/sft.py", *command], folder)
    resume = ["--resume_from_checkpoint", str(folder / "checkpoint-4"), "--learning_rate", "1e-3"]
    status, output = run_main("sft", *command, *resume, "--lr_scheduler_kwargs", '{"on_resume": "replace"}')
    assert status == 0, output
    return folder


def report(*words: Any) -> str:
    return printed("report", *words)


def evaluation(models: dict[str, list[bool]], completion: str = "12") -> dict[str, Any]:
    results: dict[str, Any] = {}
    for model, verdicts in models.items():
        problems = [{"prompt": f"sort {number}", "answer": "12"} for number in range(len(verdicts))]
        completions = [Completion(completion, True) for _ in problems]
        results[model] = score_greedy(completions, problems, lambda verdicts=verdicts, **_: list(verdicts))
        results[model]["settings"] = {"metric": "exact_answer", "on": "held_out", "config": None, "split": "test"}
    return results


class Tags(HTMLParser):
    """The tags and texts of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def drawn(draw: Any, label: str) -> list[float]:
    """Where a panel marks the steps with this label."""
    _, (ax,) = plotting.new_figure(1)
    draw(ax)
    (line,) = (line for line in ax.lines if line.get_label() == label)
    return list(line.get_xdata())


def test_report_of_a_resumed_run_has_every_section(sft: Path, tmp_path: Path):
    report(sft, "--output", tmp_path / "r.md", "--html")
    written = (tmp_path / "r.md").read_text()
    run = load_runs([sft])[0]
    first, second = run.sessions
    assert (first["step"], second["step"]) == (0, 4) and first["versions"].keys() >= {"hf_sched", "torch", "trl"}
    assert first["arguments"]["learning_rate"] == BASE["sft"]["learning_rate"]
    audit = "".join(f"    {line}\n" for line in run.audit.lines)
    assert audit in written and "note: resumed at step 4\n    The learning rates are the planned ones." in audit
    assert "| `grad_norm` |" in written and "| `hub_token` | `(hidden)` |" in written
    assert "| `learning_rate` | `1e-3` |" in written.split("Resumed at step 4; unchanged entries are omitted:")[1]
    losses = run.curves["loss"][1]
    assert f"{losses.min():.4g} (step {losses.argmin() + 1})" in written
    for file in (tmp_path / "r.md", tmp_path / "r.html", sft / "run.json"):
        assert TOKEN not in file.read_text()
    assert (tmp_path / "sft_learning_rate.png").read_bytes().startswith(b"\x89PNG")
    panels = panels_of_run(run)
    assert list(panels)[:2] == ["learning rate", "loss"]
    for panel in panels.values():
        assert drawn(panel, "resumed") == [3.5, 3.5]  # steps are drawn from 0: between the 4th and the 5th


def test_page_is_self_contained_and_data_cannot_become_html(sft: Path, tmp_path: Path):
    folder = tmp_path / "<img src=x onerror=alert(1)> run"
    shutil.copytree(sft, folder, ignore=WITHOUT_WEIGHTS)
    sessions = json.loads((folder / "run.json").read_text())
    sessions["sessions"][0]["arguments"] |= {EVIL: EVIL}
    (folder / "run.json").write_text(json.dumps(sessions))
    results = evaluation({EVIL: [True, False], str(folder): [True, True]}, completion=EVIL)
    (folder / "evaluation.json").write_text(json.dumps(results))
    report(folder, "--output", tmp_path / "page.html")
    source = (tmp_path / "page.html").read_text()
    seen = Tags(source)
    allowed = "html head meta title style body h1 h2 h3 p table thead tbody tr th td pre code img ul li em strong"
    assert {tag for tag, _ in seen.tags} <= set(allowed.split())
    for tag, attributes in seen.tags:
        assert not {"href", "srcset", "onerror", "style"} & attributes.keys()
        assert tag != "img" or (attributes["src"] or "").startswith("data:image/png;base64,")
    assert not re.search(r"url\(|@import", source)
    # The text can be read as it was written, in the cells of the examples.
    assert seen.texts.count(f"{EVIL} ✓") == 3 and seen.texts.count(f"{EVIL} ✗") == 1
    markdown = tmp_path / "page.md"
    report(folder, "--output", markdown)
    assert "<script" not in re.sub(r"(`+).*?\1|^    .*", "", markdown.read_text(), flags=re.M)


@pytest.mark.parametrize("value", [EVIL, "`", "``a`", "a|b", "*", "_x_ y_z", "\\", "~~a~~", "", "a\n| b", "# h"])
def test_text_and_code_render_as_themselves(value: str):
    seen = Tags(to_html(f"| {text(value)} | {code(value)} |\n|---|---|", {}, "t"))
    assert not {"em", "strong", "a", "img", "del", "h1", "script", "b"} & {tag for tag, _ in seen.tags}
    shown = "".join(seen.texts)
    flat = " ".join(value.split())
    assert shown.count(flat) >= 2 or not flat


def test_killed_run_is_reported_up_to_its_last_step(sft: Path, tmp_path: Path):
    folder = tmp_path / "killed"
    shutil.copytree(sft / "checkpoint-4", folder / "checkpoint-4")
    (folder / "trainer_state.json").write_text("")  # killed while it wrote the file
    rows = (sft / LEARNING_RATES).read_text().splitlines()[:7]  # a line for the session, and 6 steps
    report(folder)
    written = (folder / "report.md").read_text()
    assert "It made 4 of 8 steps" in written and "Unknown: the run has no `run.json`" in written
    (folder / LEARNING_RATES).write_text("\n".join(rows) + '\n{"step": 7, "ra')
    report(folder)
    written = (folder / "report.md").read_text()
    assert "Logged values are known up to step 4, its last checkpoint." in written


def test_run_of_another_trainer_is_reported(model_path: Path, tmp_path: Path):
    trainer, _ = make(model_path, tmp_path, max_steps=4, save_strategy="steps", save_steps=4)
    trainer.train()
    report(tmp_path)
    written = (tmp_path / "report.md").read_text()
    assert re.search(r"^    planned +linear, 4 steps", written, re.M) and "the run has no `run.json`" in written
    (tmp_path / "checkpoint-4/training_args.bin").unlink()
    report(tmp_path)
    written = (tmp_path / "report.md").read_text()
    assert "not comparable with a plan: nothing in" in written and "| `loss` |" in written
    assert list(panels_of_run(load_runs([tmp_path])[0]))[:2] == ["learning rate", "loss"]


def test_departure_from_the_plan_is_marked(sft: Path, tmp_path: Path):
    shutil.copytree(sft, tmp_path / "run", ignore=WITHOUT_WEIGHTS)
    rows = [json.loads(line) for line in (sft / LEARNING_RATES).read_text().splitlines()]
    halved = [row | {"rates": [row["rates"][0] / 2]} if row.get("step", 0) > 5 else row for row in rows]
    (tmp_path / "run" / LEARNING_RATES).write_text("".join(json.dumps(row) + "\n" for row in halved))
    report(tmp_path / "run")
    lines = (tmp_path / "run/report.md").read_text().splitlines()
    (wrong,) = (line for line in lines if line.startswith("    - "))
    assert "off the plan from step 6 to 8" in wrong and "No known cause fits" in wrong
    for panel in panels_of_run(load_runs([tmp_path / "run"])[0]).values():
        assert drawn(panel, "off the plan from step 6") == [4.5, 4.5]


def test_two_runs_side_by_side(sft: Path, tmp_path: Path):
    first, second = tmp_path / "one/sft", tmp_path / "two/sft"
    for folder, verdicts in {first: [False] * 30 + [True] * 10, second: [True] * 38 + [False] * 2}.items():
        shutil.copytree(sft, folder, ignore=WITHOUT_WEIGHTS)
        (folder / "evaluation.json").write_text(json.dumps(evaluation({str(folder): verdicts})))
    made = json.loads((sft / "run.json").read_text())
    made["sessions"][-1]["arguments"]["evaluate_samples"] = 3
    made["sessions"][-1]["versions"]["trl"] = "0.1"
    (second / "run.json").write_text(json.dumps(made))
    report(first, second, "--output", tmp_path / "both.md", "--html")
    written = (tmp_path / "both.md").read_text()
    assert "|  | one/sft | two/sft |" in written  # named with their parents
    differing = written.split("### Arguments and versions that differ")[1].split("## ")[0]
    assert re.findall(r"^\| `(\w+)`", differing, re.M) == ["trl", "evaluate_samples"]
    assert "| exact match, greedy | 25.0% (14.2% to 40.2%) | 95.0% (83.5% to 98.6%) |" in written
    assert "| measured | by `exact_answer` on 40 problems of `held_out` (test) |" in written
    assert (tmp_path / "comparison_learning_rate.png").is_file()
    images = [tag for tag, _ in Tags((tmp_path / "both.html").read_text()).tags if tag == "img"]
    assert len(images) == 3 * 4  # learning rate, loss, entropy, gradient norm


def test_graded_metric_is_reported_as_a_mean(sft: Path, tmp_path: Path):
    (tmp_path / "e.json").write_text(json.dumps(evaluation({str(sft): [0.5, 0.99]})))
    printed = report(sft, "--evaluation", tmp_path / "e.json", "--output", tmp_path / "report.md")
    written = (tmp_path / "report.md").read_text()
    assert f"mean score of {sft}: 0.745 (" in printed and "## Mean score on held-out problems" in written
    assert "| 12 (0.5) |" in written and "xact match" not in printed + written


def test_command_of_the_demo_and_wrong_arguments(sft: Path, run_recipe: Any, tmp_path: Path):
    rewards = ["exact_answer", {"name": "repetition_penalty", "max_penalty": -0.5}]
    grpo = run_recipe("grpo", name="grpo", max_steps=4, reward_funcs=rewards).folder
    runs = load_runs([sft, grpo])
    assert [run.name for run in runs] == ["sft", "grpo"]
    assert list(panels_of_run(runs[1]))[:4] == ["learning rate", "loss", "reward", "completion length (tokens)"]
    assert runs[1].rewards == ["rewards/exact_answer/mean", "rewards/repetition_penalty/mean"]
    (tmp_path / "e.json").write_text(json.dumps(evaluation({str(sft): [True, False], str(grpo): [True, True]})))
    printed = report(sft, grpo, "--evaluation", tmp_path / "e.json", "--output", tmp_path / "report.md")
    written = (tmp_path / "report.md").read_text()
    assert written.index("## Exact match") < written.index("## Side by side") < written.index("## sft")
    pictures = re.findall(r"^!\[.*\]\((\S+\.png)\)$", written, re.M)
    assert len(pictures) > 10 and all((tmp_path / name).is_file() for name in pictures)
    outcomes = ["steps", "learning rates as planned", "exact match, greedy", "measured", "loss, last", "reward, last"]
    assert all(f"\n| {name}" in written for name in outcomes)
    assert f"exact match of {sft}: 50.0% (9.5% to 90.5%)" in printed
    for words, expected in {
        (tmp_path,): "has no trainer_state.json",
        (sft, sft, "--output", "x.md"): "`RUN` must be different folders",
        (sft, "--output", "x.pdf"): "must be a file that ends in .md or .html",
        (sft, "--evaluation", tmp_path / "none.json"): "`--evaluation` must be a file that `hf-sched evaluate` wrote",
    }.items():
        assert expected in error_message("report", *words)


@pytest.mark.slow
def test_report_on_100_000_log_lines_takes_6_seconds(tmp_path: Path):
    steps = 100_000
    rates = hf_sched.build("cosine_floor", num_training_steps=steps, num_warmup_steps=100).curve(peak=1e-3)
    names = ["loss", "grad_norm", "reward", "rewards/exact_answer/mean", "rewards/length/mean", "entropy", "kl"]
    names += ["completions/mean_length", "completions/clipped_ratio", "frac_reward_zero_std", "step_time"]
    values = torch.rand(steps, len(names), generator=torch.Generator().manual_seed(0)).tolist()
    history = [
        {"step": step, "learning_rate": float(rate), **dict(zip(names, row, strict=True))}
        for step, (rate, row) in enumerate(zip(rates, values, strict=True), start=1)
    ]
    state = {"global_step": steps, "max_steps": steps, "epoch": 1.0, "log_history": history}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    args = TrainingArguments(
        str(tmp_path), max_steps=steps, warmup_steps=100, learning_rate=1e-3, lr_scheduler_type="cosine_floor"
    )
    torch.save(args, tmp_path / "training_args.bin")
    start = time.process_time()
    report(tmp_path, "--html")
    assert time.process_time() - start <= 6
    assert "compared           100000 of 100000 steps" in (tmp_path / "report.md").read_text()
