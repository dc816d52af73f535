"""Reports of runs as they were left behind: whole, resumed, killed, of another program, with evil text in them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

import hf_sched
import hf_sched.finetune.grpo as grpo_recipe
import hf_sched.finetune.sft as sft_recipe
from hf_sched._run_files import LEARNING_RATES
from hf_sched.audit import AuditReport
from hf_sched.finetune.evaluation.statistics import wilson
from hf_sched.finetune.reports.compare import _loaded, _outcomes
from hf_sched.finetune.reports.markdown import code, text
from hf_sched.finetune.reports.page import page
from hf_sched.finetune.reports.pictures import pictures_of_run
from hf_sched.finetune.reports.report import main
from hf_sched.finetune.reports.run_folder import RunFolder, load_runs
from tests.helpers.recipes import COMMON, GRPO, ONE_PROCESS, SFT, finish

EVIL = "<script>alert(1)</script> | ![x](http://evil.example/a.png) [y](javascript:z) `<b>` **bold** \\| &lt;i&gt; $x$"
TOKEN = "hf_" + "abcdefgh" * 4


def words(recipe: str, task: Path, folder: Path, **given: Any) -> list[str]:
    arguments = {
        "model_name_or_path": str(task / "model"),
        "dataset_name": str(task / recipe),
        "output_dir": str(folder),
        "lr_scheduler_type": "cosine_floor",
        **COMMON,
        **(SFT if recipe == "sft" else GRPO),
        **given,
    }
    config = folder.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(arguments))
    return [f"recipes/{recipe}.py", "--config", str(config)]


def train(main: Callable[[], int], command: list[str]) -> None:
    """Run a recipe in this process, where all is imported already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command)
        assert main() == 0


@pytest.fixture(scope="module")
def sft(task: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8 steps that was resumed at step 4 with another learning rate, each with a token."""
    folder = tmp_path_factory.mktemp("runs") / "sft"
    command = [*words("sft", task, folder, max_steps=8, save_strategy="steps", save_steps=4), "--hub_token", TOKEN]
    finish(ONE_PROCESS, command, folder)
    resume = ["--resume_from_checkpoint", str(folder / "checkpoint-4"), "--learning_rate", "1e-3"]
    train(sft_recipe.main, [*command, *resume, "--lr_scheduler_kwargs", '{"on_resume": "replace"}'])
    return folder


@pytest.fixture(scope="module")
def grpo(task: Path, sft: Path) -> Path:
    rewards = ["exact_answer", {"name": "repetition_penalty", "max_penalty": -0.5}]
    train(grpo_recipe.main, words("grpo", task, sft.parent / "grpo", max_steps=4, reward_funcs=rewards))
    return sft.parent / "grpo"


def report(monkeypatch: pytest.MonkeyPatch, *words: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["report.py", *map(str, words)])
    main()


def evaluation(models: dict[str, list[bool]], completion: str = "12") -> dict[str, Any]:
    results: dict[str, Any] = {}
    for model, verdicts in models.items():
        rows = [
            {"prompt": f"sort {number}", "answer": "12", "completion": completion, "right": right}
            for number, right in enumerate(verdicts)
        ]
        right = sum(verdicts)
        interval = wilson(right, len(rows))
        shares = {"exact_match": right / len(rows), "right": right, "problems": len(rows), "interval": interval}
        results[model] = {**shares, "interval_method": "Wilson", "cut_off": 0, "no_verdict": 0, "completions": rows}
    return results


class Tags(HTMLParser):
    """What a browser sees of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(source.replace("<wbr>", ""))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_resumed_run_says_how_each_part_of_it_was_made_and_no_secret(sft: Path):
    first, second = json.loads((sft / "run.json").read_text())["sessions"]
    assert (first["step"], second["step"]) == (0, 4)
    assert first["arguments"]["learning_rate"] == SFT["learning_rate"]
    assert second["arguments"]["learning_rate"] == "1e-3" and second["arguments"]["max_steps"] == 8
    assert first["arguments"]["hub_token"] == "(hidden)"
    assert first["versions"].keys() >= {"hf_sched", "torch", "transformers", "trl", "accelerate", "peft", "datasets"}
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert (first["git"] or {}).get("commit") == (head.stdout.strip() or None)
    assert TOKEN not in (sft / "run.json").read_text()


def test_the_report_of_a_resumed_run_has_every_section(sft: Path, tmp_path: Path, monkeypatch):
    report(monkeypatch, "--runs", sft, "--output", tmp_path / "r.md", "--html")
    written = (tmp_path / "r.md").read_text()
    for section in ("Schedule", "Learning", "Throughput", "Configuration", "Versions"):
        assert f"### {section}\n" in written
    assert "| planned, from step 5 on | cosine_floor" in written and "| resumed at step | 4 |" in written
    assert "| planned against actual | largest difference 0, over 8 of 8 steps (learning_rates.jsonl) |" in written
    assert "| `num_tokens`" not in written and "| tokens a second |" in written
    losses = RunFolder.load(sft).logged("loss")[1]
    assert f"{losses.min():.4g} (step {losses.argmin() + 1})" in written
    for found in (written, (tmp_path / "r.html").read_text()):
        assert TOKEN not in found  # training_args.bin has it
    assert (tmp_path / "sft.png").read_bytes().startswith(b"\x89PNG")


def test_resumes_are_drawn_where_they_were(sft: Path):
    from hf_sched.plots import figures as plotting

    panels = [panel for picture in pictures_of_run(RunFolder.load(sft)) for panel in picture.panels]
    assert [panel.title for panel in panels][:2] == ["learning rate", "loss"]
    for panel in panels:
        _, (ax,) = plotting.new_figure(1)
        panel.draw(ax)
        (line,) = (line for line in ax.lines if line.get_label() == "resumed")
        assert list(line.get_xdata()) == [3.5, 3.5]  # steps are drawn from 0: between the 4th and the 5th


def test_grpo_shows_the_parts_of_the_reward(grpo: Path):
    run = RunFolder.load(grpo)
    titles = [panel.title for picture in pictures_of_run(run) for panel in picture.panels]
    assert titles[:4] == ["learning rate", "loss", "reward and its parts", "completion length (tokens)"]
    assert "share of completions cut off" in titles and "entropy of the tokens" in titles
    assert run.rewards == ["rewards/exact_answer/mean", "rewards/repetition_penalty/mean"]


def test_a_page_needs_nothing_from_outside_and_lets_nothing_of_the_data_become_html(
    grpo: Path, tmp_path: Path, monkeypatch
):
    folder = tmp_path / "<img src=x onerror=alert(1)> run"
    shutil.copytree(grpo, folder, ignore=shutil.ignore_patterns("*.safetensors", "checkpoint-*"))
    sessions = json.loads((folder / "run.json").read_text())
    sessions["sessions"][0]["arguments"] |= {EVIL: EVIL}
    (folder / "run.json").write_text(json.dumps(sessions))
    results = evaluation({EVIL: [True, False], str(folder): [True, True]}, completion=EVIL)
    (folder / "evaluation.json").write_text(json.dumps(results))
    report(monkeypatch, "--runs", folder, "--output", tmp_path / "page.html")
    source = (tmp_path / "page.html").read_text()
    seen = Tags(source)
    allowed = "html head meta title style body h1 h2 h3 p div span table thead tbody tr th td code img ul li em strong"
    assert {tag for tag, _ in seen.tags} <= set(allowed.split())
    for tag, attributes in seen.tags:
        assert not {"href", "srcset", "onerror", "style"} & attributes.keys()
        assert tag != "img" or (attributes["src"] or "").startswith("data:image/png;base64,")
    assert not re.search(r"url\(|@import", source)
    # It is all there to read, as it was written, in the cells of the samples.
    assert seen.texts.count(f"{EVIL} ✓") == 3 and seen.texts.count(f"{EVIL} ✗") == 1
    markdown = tmp_path / "page.md"
    report(monkeypatch, "--runs", folder, "--output", markdown)
    assert "<script" not in re.sub(r"(`+).*?\1", "", markdown.read_text())


@pytest.mark.parametrize("value", [EVIL, "`", "``a`", "a|b", "*", "_x_ y_z", "\\", "~~a~~", "", "a\n| b", "# h"])
def test_text_and_code_render_as_themselves(value: str):
    seen = Tags(page([f"| {text(value)} | {code(value)} |", "|---|---|"], [], "t"))
    assert not {"em", "strong", "a", "img", "del", "h1", "script", "b"} & {tag for tag, _ in seen.tags}
    shown = "".join(seen.texts)
    flat = " ".join(value.split())
    assert shown.count(flat) >= 2 or not flat


def test_a_killed_run_is_told_of_as_far_as_it_went(sft: Path, tmp_path: Path, monkeypatch):
    folder = tmp_path / "killed"
    shutil.copytree(sft / "checkpoint-4", folder / "checkpoint-4")
    (folder / "trainer_state.json").write_text("")  # killed while it wrote it
    rows = (sft / LEARNING_RATES).read_text().splitlines()[:7]  # up to step 6: a line for the session, too
    report(monkeypatch, "--runs", folder)
    written = (folder / "report.md").read_text()
    assert "It made 4 of 8 steps" in written and "Not known: the run has no `run.json`" in written
    (folder / LEARNING_RATES).write_text("\n".join(rows) + '\n{"step": 7, "ra')
    report(monkeypatch, "--runs", folder)
    written = (folder / "report.md").read_text()
    assert "What was logged is known up to step 4, its last checkpoint." in written
    (folder / "checkpoint-4" / "trainer_state.json").unlink()
    report(monkeypatch, "--runs", folder)
    assert "The run logged no loss" in (folder / "report.md").read_text()


def test_a_run_of_any_trainer_is_told_of(model_path: Path, tmp_path: Path, monkeypatch):
    rows = [{"input_ids": list(range(6, 14)), "labels": list(range(6, 14))}] * 8
    args = TrainingArguments(
        str(tmp_path / "plain"), use_cpu=True, max_steps=4, logging_steps=1, report_to="none", hub_token=TOKEN
    )
    trainer = Trainer(AutoModelForCausalLM.from_pretrained(model_path), args, train_dataset=rows)
    trainer.train()
    trainer.save_state()
    report(monkeypatch, "--runs", tmp_path / "plain")
    written = (tmp_path / "plain" / "report.md").read_text()
    assert "planned | linear, 4 steps" in written and "| `max_steps` | `4` |" in written
    assert "`adam_beta1`" not in written  # as it is by default
    assert TOKEN not in written
    # Nothing says what was planned, or requested.
    (tmp_path / "plain/checkpoint-4/training_args.bin").unlink()
    report(monkeypatch, "--runs", tmp_path / "plain")
    written = (tmp_path / "plain" / "report.md").read_text()
    assert "learning rates cannot be compared" in written and "Nothing in the folder says" in written
    assert "| `loss` |" in written


class Halves(TrainerCallback):
    """Halves the learning rate from the sixth step on, as a change while the run goes on does."""

    def on_step_begin(
        self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, optimizer: Any = None, **kwargs: Any
    ) -> None:
        if state.global_step == 5:
            lr_scheduler.base_lrs = [rate / 2 for rate in lr_scheduler.base_lrs]
            for group in optimizer.param_groups:
                group["lr"] /= 2


def test_a_rate_that_is_changed_while_the_run_goes_on_is_marked(model_path: Path, tmp_path: Path, monkeypatch):
    from hf_sched.plots import figures as plotting

    rows = [{"input_ids": list(range(6, 14)), "labels": list(range(6, 14))}] * 8
    args = TrainingArguments(
        str(tmp_path / "halved"),
        use_cpu=True,
        max_steps=8,
        logging_steps=1,
        report_to="none",
        learning_rate=8e-3,
        lr_scheduler_type="linear",  # which nothing of ours guards
    )
    model = AutoModelForCausalLM.from_pretrained(model_path)
    trainer = Trainer(model, args, train_dataset=rows, callbacks=[hf_sched.LearningRateLog(), Halves()])
    trainer.train()
    trainer.save_state()

    lines = [json.loads(line) for line in (tmp_path / "halved" / LEARNING_RATES).read_text().splitlines()]
    rates = [line["rates"][0] for line in lines if "rates" in line]
    assert rates == pytest.approx([8e-3, 7e-3, 6e-3, 5e-3, 4e-3, 1.5e-3, 1e-3, 0.5e-3], rel=1e-12)
    run = RunFolder.load(tmp_path / "halved")
    assert isinstance(run.audit, AuditReport) and run.audit.departs == 5
    report(monkeypatch, "--runs", tmp_path / "halved")
    written = (tmp_path / "halved" / "report.md").read_text()
    (wrong,) = (line for line in written.splitlines() if line.startswith("| **wrong**"))
    assert "off the plan from step 6 to 8" in wrong and "1/2 times the plan's rates" in wrong
    for panel in pictures_of_run(run)[0].panels:
        _, (ax,) = plotting.new_figure(1)
        panel.draw(ax)
        (line,) = (line for line in ax.lines if line.get_label() == "off the plan from step 6")
        assert list(line.get_xdata()) == [4.5, 4.5]


def test_two_runs_side_by_side(sft: Path, tmp_path: Path, monkeypatch):
    first, second = tmp_path / "one/sft", tmp_path / "two/sft"
    for folder, verdicts in {first: [False] * 30 + [True] * 10, second: [True] * 38 + [False] * 2}.items():
        shutil.copytree(sft, folder, ignore=shutil.ignore_patterns("*.safetensors", "checkpoint-*"))
        (folder / "evaluation.json").write_text(json.dumps(evaluation({str(folder): verdicts})))
    made = json.loads((sft / "run.json").read_text())
    made["sessions"][-1]["arguments"]["evaluate_samples"] = 3
    made["sessions"][-1]["versions"]["trl"] = "0.1"
    (second / "run.json").write_text(json.dumps(made))
    report(monkeypatch, "--runs", first, second, "--compare", "--output", tmp_path / "both.md", "--html")
    written = (tmp_path / "both.md").read_text()
    assert "|  | one/sft | two/sft |" in written  # told apart by their parents
    differing = written.split("### Arguments that differ")[1]
    assert re.findall(r"^\| `(\w+)`", differing, re.M) == ["evaluate_samples", "trl"]
    assert "two/sft against one/sft: +70.0 points" in written and "30 gained, 2 lost" in written
    # On other problems nothing is said.
    results = json.loads((second / "evaluation.json").read_text())
    results[str(second)]["completions"][0]["prompt"] = "sort 100"
    (second / "evaluation.json").write_text(json.dumps(results))
    report(monkeypatch, "--runs", first, second, "--compare", "--output", tmp_path / "other.md")
    assert "two/sft against one/sft: not compared" in (tmp_path / "other.md").read_text()
    assert "### Schedule" not in written and (tmp_path / "comparison.png").is_file()
    images = [tag for tag, _ in Tags((tmp_path / "both.html").read_text()).tags if tag == "img"]
    assert len(images) == 3  # learning rate, loss, entropy


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"measured": {"metric": "accuracy"}}, "by different metrics, `exact_answer` and `accuracy`"),
        ({"measured": {"metric": {"name": "exact_answer", "time_limit": 2}}}, "by different metrics, `exact_answer`"),
        ({"settings": {"max_new_tokens": 16}}, "with different `max_new_tokens`, 10 and 16"),
        ({"measured": {}}, "not all of them say by which metric"),
        ({}, "no difference shown"),
    ],
)
def test_what_was_measured_otherwise_is_not_compared(sft: Path, tmp_path: Path, monkeypatch, changed, told):
    for name, more in {"one": {}, "two": changed}.items():
        shutil.copytree(sft, tmp_path / name, ignore=shutil.ignore_patterns("*.safetensors", "checkpoint-*"))
        results = evaluation({str(tmp_path / name): [True, False]})
        here = {"data": "held_out", "data_config": None, "split": "test"}
        measured = {**here, "metric": "exact_answer"} if more.get("measured", True) else {}
        results[str(tmp_path / name)] |= {
            "settings": {"max_new_tokens": 10},
            **more,
            "measured": measured and {**measured, **more.get("measured", {})},
        }
        (tmp_path / name / "evaluation.json").write_text(json.dumps(results))
    report(monkeypatch, "--runs", tmp_path / "one", tmp_path / "two", "--output", tmp_path / "r.md")
    written = (tmp_path / "r.md").read_text()
    (line,) = (line for line in written.splitlines() if line.startswith("- two against one: "))
    assert told in line and ("not compared" in line) == ("different" in told)
    assert "Measured by `exact_answer` on 2 problems of `held_out` (test)" in written
    assert "| measured | by `exact_answer` on 2" in written


def test_samples_drawn_otherwise_are_not_compared():
    settings = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 10}
    result = {"interval": [0, 1], "sampled": {"samples": 2, "settings": settings}}
    warmer = {**result, "sampled": {"samples": 2, "settings": {**settings, "temperature": 0.7}}}
    assert all("sampled" in one for one in _loaded(result, result))
    assert not any("sampled" in one for one in _loaded(result, warmer))


def test_rows_keep_their_order_where_a_run_has_more(sft: Path, grpo: Path):
    names = [row[0] for row in _outcomes(load_runs([sft, grpo]), {})]
    assert names[:2] == ["steps", "resumed at step"] and names[-1] == "git commit"
    assert names.index("loss, best") < names.index("reward, best") < names.index("training time")


def test_the_demo_command_and_wrong_ones(sft: Path, grpo: Path, tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "e.json").write_text(json.dumps(evaluation({str(sft): [True, False], str(grpo): [True, True]})))
    report(monkeypatch, "--runs", sft, grpo, "--evaluation", tmp_path / "e.json", "--output", tmp_path / "report.md")
    written = (tmp_path / "report.md").read_text()
    assert written.index("## Exact match") < written.index("## Side by side") < written.index("## sft")
    assert all((tmp_path / name).is_file() for name in re.findall(r"\]\((\S+\.png)\)$", written, re.M))
    assert "exact match of" in capsys.readouterr().out
    for words, message in {
        ("--runs", tmp_path): "received",
        ("--runs", sft, grpo): "`--output` must be given for several runs",
        ("--runs", sft, "--compare"): "`--compare` needs two runs or more",
        ("--runs", sft, sft, "--output", "x.md"): "received one of them twice",
        ("--runs", sft, "--output", "x.pdf"): "must end in .md or .html",
        ("--runs", sft, "--evaluation", tmp_path / "none.json"): "`--evaluation` must be what evaluation.py wrote",
    }.items():
        with pytest.raises(SystemExit) as stopped:
            report(monkeypatch, *words)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


def test_runs_are_named_apart(sft: Path, grpo: Path):
    assert [run.name for run in load_runs([sft, grpo])] == ["sft", "grpo"]
