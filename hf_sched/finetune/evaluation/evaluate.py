"""Exact match on held-out problems, greedy and sampled: how many answers of a model are right, and how sure that is.

    python -m hf_sched.finetune.evaluation.evaluate --models runs/demo/sft runs/demo/grpo --data runs/demo/task/grpo/test.jsonl \\
        --metric exact_answer --output runs/demo/evaluation.json

The data have `prompt` and `answer`, or `question` and `answer` as in GSM8K. The metric is one of rewards/. A model is a
folder, that of a LoRA adapter too, or a hub name. With `--samples 8` each problem is also answered eight times at
`--temperature`, for pass@1 and pass@8.

The output holds, for each model, the share of right answers with its 95% interval, by which metric and on what data it
was measured, every completion, and from the second model on the difference to the one before it, on the same problems.
Each finished batch is kept beside the output (evaluation.jsonl): killed and started again, it goes on there, and with
the same `--batch_size` ends in the same result bit for bit. A finished one costs nothing to score again, by another
metric or with more samples.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from accelerate.utils.memory import clear_device_cache
from tqdm import tqdm
from trl import DatasetMixtureConfig, ScriptArguments

from hf_sched.finetune.data.load import (
    FINAL_ANSWER,
    PROBLEMS,
    checked_split,
    load_splits,
    names_of_columns,
    to_problem,
)
from hf_sched.finetune.evaluation.generation import (
    ENGINES,
    Decoding,
    Loading,
    choose_engine,
    default_device,
    encode,
    load_engine,
    load_tokenizer,
)
from hf_sched.finetune.evaluation.generation_cache import Completion, Journal, Place, identity
from hf_sched.finetune.evaluation.metrics import Problem, Result, compare, describe, score_greedy, score_sampled
from hf_sched.finetune.rewards import Reward, check_reward_columns, load_rewards


@dataclass(frozen=True)
class Settings:
    """How to evaluate."""

    max_new_tokens: int = 256
    samples: int = 0
    """For each problem, beside the greedy answer."""
    temperature: float = 1.0
    """Of the samples."""
    top_p: float = 1.0
    """Of the samples."""
    seed: int = 0
    """Of the samples."""
    pass_at: Sequence[int] = ()
    """By default 1 and `samples`."""
    engine: str = "auto"
    batch_size: int = 100
    loading: Loading = field(default_factory=Loading)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"`batch_size` must be above 0, received {self.batch_size}")
        if self.samples < 0:
            raise ValueError(f"`samples` must not be negative, received {self.samples}: 0 is greedy alone")
        if self.samples and self.temperature == 0:
            raise ValueError("`temperature` must be above 0 for `samples` to differ, received 0")
        for k in self.pass_at:
            if not 1 <= k <= self.samples:
                raise ValueError(f"`pass_at` must be between 1 and `samples`, {self.samples}, received {k}")
        for sampled in (False, True):
            self.decoding(sampled)
        choose_engine(self.engine)

    @property
    def ks(self) -> list[int]:
        """Each k of pass@k, in order."""
        return sorted(set(self.pass_at or (1, self.samples)))

    def decoding(self, sampled: bool) -> Decoding:
        """How the tokens of greedy answers, or of samples, are chosen."""
        return Decoding(self.max_new_tokens, self.temperature, self.top_p) if sampled else Decoding(self.max_new_tokens)


@dataclass(frozen=True)
class HeldOut:
    """The problems, and what decides which answers are right."""

    data: str
    """Hub name, folder or file."""
    data_config: str | None = None
    split: str = "test"
    columns: Mapping[str, str] | None = None
    """As a recipe's."""
    instruction: str = FINAL_ANSWER
    """As a recipe's."""
    max_problems: int | None = None
    """Only the first so many."""
    metric: Any = "exact_answer"
    """A reward of rewards/, as a recipe names it."""

    def __post_init__(self) -> None:
        if self.max_problems is not None and self.max_problems < 1:
            raise ValueError(f"`max_problems` must be above 0, received {self.max_problems}")
        named = self.metric
        if isinstance(named, str) and named.lstrip().startswith("{"):
            named = yaml.safe_load(named)
        if isinstance(named, Mapping) and set(named) == {"name"}:
            named = named["name"]
        object.__setattr__(self, "metric", named)

    def problems(self) -> list[Problem]:
        """The held-out problems, or the first so many of them.

        Raises:
            ValueError: There is no such data or split, there are no problems, or a row is not what it must be.
        """
        source = ScriptArguments(
            dataset_name=self.data, dataset_config=self.data_config, dataset_train_split=self.split
        )
        splits = load_splits(source, DatasetMixtureConfig(), argument="data")
        convert = partial(to_problem, instruction=self.instruction)
        rows = checked_split(source, splits, self.split, "split", convert, columns=self.columns, forms=PROBLEMS)
        if not len(rows):
            raise ValueError(f"{self.data!r} must hold problems, but there are none in its split {self.split!r}")
        most = min(self.max_problems or len(rows), len(rows))
        return [dict(row) for row in rows.select(range(most))]

    def reward(self, problems: Sequence[Problem]) -> Reward:
        """The metric.

        Raises:
            ValueError: There is none by that name, or it needs what the problems do not have.
        """
        metric = load_metric(self.metric)
        check_reward_columns([metric], list(problems[0]))
        return metric


def load_metric(named: Any) -> Reward:
    """The reward that says whether an answer is right.

    Raises:
        ValueError: There is none by that name, or it is a model.
    """
    try:
        (metric, *more), _ = load_rewards(named)
    except ValueError as error:
        raise ValueError(str(error).replace("`reward_funcs`", "`metric`")) from None
    if more or isinstance(metric, str):
        raise ValueError(f"`metric` must be one reward that checks answers, received {named!r}")
    return metric


def evaluate(models: Sequence[str], held_out: HeldOut, settings: Settings, output: Path) -> dict[str, Result]:
    """Evaluate each model, write the results and print them; what was done before an interruption is not done again.

    Raises:
        ValueError: There are no such problems or metric, a model cannot be loaded, or the file beside `output` is not
            of an evaluation.
    """
    problems = held_out.problems()
    metric = held_out.reward(problems)
    results: dict[str, Result] = {}
    for model in models:
        result = evaluate_one(model, problems, metric, settings, output.with_suffix(".jsonl"))
        drawn = {"temperature": settings.temperature, "top_p": settings.top_p} if settings.samples else {}
        result["measured"] = {**asdict(held_out), "samples": settings.samples, **drawn}
        for before, other in list(results.items())[-1:]:
            result["compared"] = compare(other, result, before)
        results[model] = result
        print("\n".join(describe(model, result)))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return results


def evaluate_one(model: str, problems: Sequence[Problem], metric: Reward, settings: Settings, journal: Path) -> Result:
    """The result of one model."""
    answers = Answers(model, problems, settings, journal)
    result = score_greedy([one for (one,) in answers.get()], problems, metric)
    result["settings"] = answers.settings_of(sampled=False)
    if settings.samples:
        result["sampled"] = score_sampled(answers.get(settings.samples, sampled=True), problems, metric, settings.ks)
        result["sampled"]["settings"] = answers.settings_of(sampled=True)
    return result


class Answers:
    """A model's completions, from the journal as far as they are there; the model is loaded when first needed."""

    def __init__(self, model: str, problems: Sequence[Problem], settings: Settings, journal: Path) -> None:
        self.model, self.problems, self.settings, self.journal = model, problems, settings, journal
        self.engine_name = choose_engine(settings.engine)
        try:
            self.tokenizer = load_tokenizer(model, settings.loading)
            self.identity = identity(model, settings.loading.revision)
        except OSError as error:
            raise ValueError(f"`models` must be folders or hub names of models, received {model!r}: {error}") from None
        self.prompts = [encode(self.tokenizer, problem["prompt"]) for problem in problems]

    @cached_property
    def engine(self) -> Any:
        """With the model loaded."""
        clear_device_cache(garbage_collection=True)  # of the model before
        return load_engine(self.engine_name, self.model, self.tokenizer, self.settings.loading)

    def settings_of(self, sampled: bool) -> dict[str, Any]:
        """All that a completion depends on. (Not `samples`: each has a seed of its own.)"""
        versions = {name: version(name) for name in (self.engine_name, "torch")}
        settings = {
            "model": self.model,
            "decoding": "sampled" if sampled else "greedy",
            "weights": self.identity,
            "problems": hashlib.sha256(json.dumps(self.prompts).encode()).hexdigest()[:16],
            "engine": ", ".join(f"{name} {number}" for name, number in versions.items()),
            **asdict(self.settings.loading),
            **asdict(self.settings.decoding(sampled)),
        }
        return {**settings, "seed": self.settings.seed} if sampled else settings

    def get(self, samples: int = 1, *, sampled: bool = False) -> list[list[Completion]]:
        """So many completions of each problem: those that are missing are generated."""
        journal = Journal(self.journal, self.settings_of(sampled))
        batches = plan_batches([len(prompt) for prompt in self.prompts], samples, self.settings.batch_size)
        missing = [batch for batch in batches if not all(place in journal.done for place in batch)]
        self._tell(journal, len(batches) - len(missing), len(batches))
        for batch in tqdm(missing, desc=self.model, unit="batch", disable=not missing):
            prompts = [self.prompts[number] for number, _ in batch]
            seeds = [seed_of(self.settings.seed, place) for place in batch]
            completions = self.engine.complete(prompts, seeds, self.settings.decoding(sampled))
            journal.append(zip(batch, completions, strict=True))
        return [[journal.done[number, sample] for sample in range(samples)] for number in range(len(self.problems))]

    def _tell(self, journal: Journal, done: int, total: int) -> None:
        if changed := journal.changed:
            what = ", ".join(f"{name} {old!r} -> {new!r}" for name, (old, new) in changed.items())
            print(f"{self.model}: changed since it was evaluated before ({what}), so it is evaluated anew")
        elif done:
            where = f"{done} of {total} batches ({journal.settings['decoding']}) are in {self.journal}"
            print(f"{self.model}: {where}" + ("; going on from there" if done < total else ""))


def plan_batches(lengths: Sequence[int], samples: int, batch_size: int) -> list[list[Place]]:
    """All samples of all problems in batches of prompts of like length, so that little is padded.

    The longest come first: what does not fit into memory shows at once.
    """
    numbers = sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
    places = [(number, sample) for number in numbers for sample in range(samples)]
    return [places[start : start + batch_size] for start in range(0, len(places), batch_size)]


def seed_of(seed: int, place: Place) -> int:
    """The seed of one sample of one problem."""
    return int.from_bytes(hashlib.sha256(json.dumps([seed, *place]).encode()).digest()[:7], "big")


def main() -> None:
    """Evaluate each model and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, help="folders or hub names")
    parser.add_argument("--data", required=True, help="hub name, folder or file")
    parser.add_argument("--data_config", help="configuration of a hub data set, such as main")
    parser.add_argument("--split", default="test", help="(default: %(default)s)")
    parser.add_argument("--columns", help="names of columns, as a recipe's: '{question: problem, answer: label}'")
    parser.add_argument("--instruction", default=FINAL_ANSWER, help="below each question (default: %(default)r)")
    parser.add_argument("--metric", default="exact_answer", help="a reward of rewards/ (default: %(default)s)")
    parser.add_argument("--max_problems", type=int, help="only the first so many")
    parser.add_argument("--max_new_tokens", type=int, default=256, help="(default: %(default)s)")
    parser.add_argument("--samples", type=int, default=0, help="for each problem, for pass@k (default: none)")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the samples (default: %(default)s)")
    parser.add_argument("--top_p", type=float, default=1.0, help="of the samples (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: %(default)s)")
    parser.add_argument("--pass_at", type=int, nargs="+", default=(), help="each k (default: 1 and all the samples)")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="auto: vLLM where it is installed")
    parser.add_argument("--batch_size", type=int, default=100, help="(default: %(default)s)")
    parser.add_argument("--dtype", default="auto", help="to load the models in (default: as they were saved)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    parser.add_argument("--revision", help="branch, tag or commit of models on the hub")
    parser.add_argument("--trust_remote_code", action="store_true", help="run code that comes with a model")
    parser.add_argument("--output", type=Path, required=True, help="a JSON file")
    args = parser.parse_args()
    try:
        settings = Settings(
            max_new_tokens=args.max_new_tokens,
            samples=args.samples,
            temperature=args.temperature,
            top_p=args.top_p,
            seed=args.seed,
            pass_at=args.pass_at,
            engine=args.engine,
            batch_size=args.batch_size,
            loading=Loading(args.dtype, args.device or default_device(), args.revision, args.trust_remote_code),
        )
        held_out = HeldOut(
            data=args.data,
            data_config=args.data_config,
            split=args.split,
            columns=names_of_columns(args.columns, "columns"),
            instruction=args.instruction,
            max_problems=args.max_problems,
            metric=args.metric,
        )
        evaluate(args.models, held_out, settings, args.output)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
