"""The options of an evaluation, once for the recipes (keys of the YAML file) and for `hf-sched evaluate` (flags)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hf_sched.schedules.validation import ArgumentError, Number, Whole


@dataclass
class EvaluationArguments:
    """Arguments for an evaluation on held-out problems."""

    evaluate_on: str | None = field(
        default=None, metadata={"help": "Held-out problems: a hub name, a folder or a file."}
    )
    evaluate_config: str | None = field(default=None, metadata={"help": "Configuration of a hub dataset: main."})
    evaluate_split: str = field(default="test", metadata={"help": "Split with the problems."})
    evaluate_test_split_size: float | None = field(
        default=None,
        metadata={"help": "Hold out this share of the split `train` as `evaluate_split`. In a recipe, as its data."},
    )
    evaluate_columns: dict[str, str] | str | None = field(
        default=None, metadata={"help": "Column names: {question: problem, answer: label}. In a recipe, as `columns`."}
    )
    evaluate_metric: dict[str, Any] | str | None = field(
        default="exact_answer",
        metadata={
            "help": "The reward that checks an answer: right if it gives 1 or more. If it gives other scores than 0 "
            "and 1, their mean is reported."
        },
    )
    evaluate_max_problems: int | None = field(default=None, metadata={"help": "Use only the first problems."})
    evaluate_max_new_tokens: int = field(default=256, metadata={"help": "Longest answer, in tokens."})
    evaluate_samples: int = field(
        default=0, metadata={"help": "Sampled answers of each problem, for pass@k, besides the greedy one."}
    )
    evaluate_temperature: float = field(default=1.0, metadata={"help": "Temperature of the samples."})
    evaluate_top_p: float = field(default=1.0, metadata={"help": "Nucleus sampling of the samples."})
    evaluate_batch_size: int = field(default=100, metadata={"help": "Prompts in one batch."})

    def __post_init__(self) -> None:
        import yaml  # slow to import: `hf-sched --help` reads this file

        for name, low in (("max_problems", 1), ("max_new_tokens", 1), ("samples", 0), ("batch_size", 1)):
            if (value := getattr(self, f"evaluate_{name}")) is not None:
                Whole(low)(f"evaluate_{name}", value)
        Number(0)("evaluate_temperature", self.evaluate_temperature)
        Number(0, 1, above_low=True)("evaluate_top_p", self.evaluate_top_p)
        if self.evaluate_samples and self.evaluate_temperature == 0:
            raise ArgumentError("evaluate_temperature", "above 0, because samples would not differ", 0)
        # Flags hold mappings as YAML.
        if isinstance(self.evaluate_columns, str):
            self.evaluate_columns = yaml.safe_load(self.evaluate_columns)
        if isinstance(self.evaluate_metric, str) and self.evaluate_metric.lstrip().startswith("{"):
            self.evaluate_metric = yaml.safe_load(self.evaluate_metric)


def flag_of(name: str) -> str:
    """The flag of `hf-sched evaluate` for a field of `EvaluationArguments`: `--metric` for `evaluate_metric`."""
    words = {"evaluate_on": "data", "evaluate_config": "data-config"}
    return "--" + words.get(name, name.removeprefix("evaluate_").replace("_", "-"))
