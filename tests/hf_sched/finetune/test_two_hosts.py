"""Runs on two hosts (network namespaces) follow the plan, and a lost host ends the other with a message."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.common.task import RunFailed
from tests.helpers.recipe_runs import STEPS, Run, Workshop
from tests.helpers.seen_by_ranks import OBSERVED, planned, seen
from tests.helpers.two_hosts import CannotRun, finish_both, network, start_on_both

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
LOSS_BOUND = 1e-5  # sums in another order
SAVE_STEPS = 4
# Seconds from the kill to the exit of the other host, on a busy machine.
PATIENCE = 120


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("hosts"))


def on_one(workshop: Workshop, recipe: str, processes: str) -> Path:
    """The folder of a run on one host, trained once."""
    folder = workshop.folder / f"{recipe}-{processes}" / "run"
    if not folder.is_dir():
        workshop.start(recipe, OBSERVED[processes], folder, save_steps=SAVE_STEPS).finish()
    return folder


@pytest.fixture
def start(workshop: Workshop) -> Iterator[Callable[..., list[Run]]]:
    """Start on both hosts, which share a disk unless `of_hosts` gives each its arguments; kill what is left."""
    started: list[Run] = []

    def start_both(
        recipe: str, processes: str, name: str, of_hosts: list[dict[str, Any]] | None = None, **given: object
    ) -> list[Run]:
        shared = workshop.folder / f"{recipe}-{name}" / "run"
        requested = {"save_steps": SAVE_STEPS, "output_dir": str(shared), **given}
        folders = [{"folder": folder, **requested} for folder in (shared, shared.with_name("second"))]
        runs = start_on_both(workshop, recipe, OBSERVED[processes], of_hosts or folders)
        started.extend(runs)
        return runs

    with ExitStack() as stack:
        try:
            stack.enter_context(network())
        except CannotRun as reason:
            pytest.skip(str(reason))
        yield start_both
        for run in started:
            run.kill(run.processes())


def is_at(run: Run, step: int) -> bool:
    steps = run.folder / "learning_rates.jsonl"
    return steps.is_file() and f'"step": {step}, "rates"' in steps.read_text(encoding="utf-8")


def ends_within(run: Run, seconds: float) -> None:
    until = time.monotonic() + seconds
    while run.running:
        assert time.monotonic() < until, f"still running after {seconds} s:\n{run.output[-2000:]}"
        time.sleep(0.1)


@pytest.mark.parametrize("recipe", ["sft", "grpo"])
def test_every_rank_on_two_hosts_trains_on_the_planned_rates_as_on_one(workshop, start, recipe):
    one = seen(on_one(workshop, recipe, "4"), 4)
    first, _ = finish_both(start(recipe, "4", "both"))
    for rank, other in zip(seen(first.folder, 4), one, strict=True):
        assert [set(rates) for rates in rank.rates] == [{rate} for rate in planned(recipe)]
        assert rank.rates == other.rates
        assert np.count_nonzero(rank.losses) == STEPS
        np.testing.assert_allclose(rank.losses, other.losses, rtol=0, atol=LOSS_BOUND)
        torch.testing.assert_close(rank.logits, other.logits, rtol=0, atol=LOSS_BOUND)


@pytest.mark.parametrize(("recipe", "lost"), [("sft", 0), ("grpo", 1)])
def test_killed_host_is_reported_and_the_resumed_run_equals_an_uninterrupted_one(workshop, start, recipe, lost):
    whole = on_one(workshop, recipe, "2")
    runs = start(recipe, "2", f"lost-{lost}")
    assert runs[0].wait_for(lambda: is_at(runs[0], 2 * SAVE_STEPS + 1)), runs[0].output
    assert runs[lost].kill(runs[lost].processes())
    left = runs[1 - lost]
    ends_within(left, PATIENCE)
    with pytest.raises(RunFailed, match="error"):
        left.finish()
    message = left.output.split("ERROR: ")[1]
    assert "another process of this run, on this node or another, is gone" in message
    assert "launch the run again with `resume_from_checkpoint: auto`" in message
    last = max((int(path.name.split("-")[1]) for path in runs[0].folder.glob("checkpoint-*")), default=0)
    assert 2 * SAVE_STEPS <= last < STEPS
    assert f"which resumes from {runs[0].folder}/checkpoint-" in message

    finish_both(start(recipe, "2", f"lost-{lost}"))
    for rank, before in zip(seen(runs[0].folder, 2), seen(whole, 2), strict=True):
        assert 0 < len(rank.rates) <= STEPS - SAVE_STEPS, "it was resumed, not started again"
        assert rank.rates == before.rates[-len(rank.rates) :]
        assert rank.losses == before.losses
        assert torch.equal(rank.logits, before.logits)


def test_hosts_with_different_last_checkpoints_are_rejected(workshop, start, tmp_path):
    disks = [on_one(workshop, "sft", "2"), tmp_path / "other"]
    given = {"resume_from_checkpoint": "auto"}
    of_hosts = [{"folder": tmp_path / f"log_{n}", "output_dir": str(disk), **given} for n, disk in enumerate(disks)]
    for run in start("sft", "2", "disks", of_hosts):
        with pytest.raises(RunFailed):
            run.finish()
        assert re.search(r"different checkpoints: checkpoint-\d+ \(ranks \[0\]\), none", run.output), run.output
