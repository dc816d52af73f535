"""A peak far from the usual ones is a warning, never an error."""

from __future__ import annotations

import pytest

from hf_sched.check import CheckReport
from hf_sched.schedules.peak_range import PeakRange, peak_range
from tests.helpers.findings import report

QLORA = {"use_peft": True, "lora_r": 16, "lora_alpha": 64}


def usual(found: CheckReport) -> PeakRange:
    assert found.peak
    return found.peak


@pytest.mark.parametrize("kind", ["sft", "dpo", "grpo"])
@pytest.mark.parametrize("lora", [{}, QLORA], ids=["all weights", "lora"])
def test_only_peaks_an_order_of_magnitude_outside_the_range_are_warned_of(kind, lora, model_path):
    run = {"model_name_or_path": str(model_path), "per_device_train_batch_size": 8, **lora}
    found = usual(report(kind, num_processes=2, **run))
    options = {"lora_r": 16, "lora_alpha": 64} if lora else {}
    task = {"grpo": "rl"}.get(kind, kind)
    assert found == peak_range(task, width=16, layers=1, batch_size=16, **options)
    for peak, words in (
        (found.low / 9.5, ""),
        (found.start, ""),
        (found.high * 9.5, ""),
        (found.low / 12, "12 times below"),
        (found.high * 12, "12 times above"),
    ):
        checked = report(kind, num_processes=2, learning_rate=peak, **run)
        assert checked.ok and [one.key for one in checked.findings] == ["learning_rate"] * bool(words)
        assert all(words in one.message and f"{found.start:.1e}" in one.message for one in checked.findings)


def test_range_is_wider_for_an_unknown_model_and_missing_for_unknown_runs():
    unknown = usual(report("sft", model_name_or_path="no/such-model"))
    known = peak_range("sft", width=1024)
    assert known and unknown.low < known.low and known.high < unknown.high
    for optim, found in (("paged_adamw_8bit", True), ("lion_32bit", True), ("sgd", False), ("galore_adamw", False)):
        assert (report("sft", optim=optim).peak is not None) == found
    assert report("trainer", learning_rate=1.0).peak is None
    assert report("sft", use_peft=True, lora_alpha=0).peak is None
    assert report("sft", learning_rate=0.0).findings == ()
