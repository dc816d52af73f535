"""Exact match on held-out problems, greedy: how many answers of a model are right.

    python recipes/evaluation.py --models runs/demo/sft runs/demo/grpo --data runs/demo/task/grpo/test.jsonl \\
        --metric exact_answer --output runs/demo/evaluation.json

The data have `prompt` and `answer`, or `question` and `answer` as in GSM8K. The metric is one of rewards/. The output
holds, for each model, the share of right answers and the completions of the first problems.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DatasetMixtureConfig, ScriptArguments

from data import load_splits, to_problem
from data import split as take_split
from rewards import Reward, load_rewards

Problem = dict[str, Any]


def complete(model_path: str, problems: list[Problem], *, max_new_tokens: int, batch_size: int) -> list[str]:
    """The greedy completion of each problem's prompt, in order."""
    tokenizer = AutoTokenizer.from_pretrained(model_path, padding_side="left")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype="auto").to(device).eval()
    completions: list[str] = []
    for start in tqdm(range(0, len(problems), batch_size), desc=model_path, unit="batch"):
        prompts = [_as_text(tokenizer, problem["prompt"]) for problem in problems[start : start + batch_size]]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(device)
        inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            output = model.generate(
                **inputs, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
        new_tokens = output[:, inputs["input_ids"].shape[1] :]
        completions += tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
    return completions


def evaluate(completions: list[str], problems: list[Problem], metric: Reward) -> dict[str, Any]:
    """The share of right answers, how many that are, and every problem with its completion."""
    right = metric(completions=completions, answer=[problem["answer"] for problem in problems])
    rows = [
        {"prompt": problem["prompt"], "answer": problem["answer"], "completion": completion, "right": bool(score)}
        for problem, completion, score in zip(problems, completions, right, strict=True)
    ]
    correct = sum(row["right"] for row in rows)
    return {"exact_match": correct / len(rows), "right": correct, "problems": len(rows), "completions": rows}


def main() -> None:
    """Evaluate each model and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, help="paths or hub names")
    parser.add_argument("--data", required=True, help="hub name, folder or file")
    parser.add_argument("--data_config", help="configuration of a hub data set, such as main")
    parser.add_argument("--split", default="test", help="(default: %(default)s)")
    parser.add_argument("--metric", default="exact_answer", help="a reward of rewards/ (default: %(default)s)")
    parser.add_argument("--max_problems", type=int, help="only the first so many")
    parser.add_argument("--max_new_tokens", type=int, default=256, help="(default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=100, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="a JSON file")
    args = parser.parse_args()
    try:
        ((metric,), _) = load_rewards(args.metric)
        if isinstance(metric, str):
            raise ValueError(f"`--metric` must be a reward that checks answers, received the model {metric!r}")
        source = ScriptArguments(
            dataset_name=args.data, dataset_config=args.data_config, dataset_train_split=args.split
        )
        rows = take_split(load_splits(source, DatasetMixtureConfig()), args.split, "--split", to_problem)
    except ValueError as error:
        parser.error(str(error))
    problems = [dict(row) for row in (rows.select(range(args.max_problems)) if args.max_problems else rows)]

    results = {}
    for model in args.models:
        completions = complete(model, problems, max_new_tokens=args.max_new_tokens, batch_size=args.batch_size)
        results[model] = evaluate(completions, problems, metric)
        print(f"{model}: {results[model]['right']} of {len(problems)} right, {results[model]['exact_match']:.1%}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(results, indent=1), encoding="utf-8")


def _as_text(tokenizer: Any, prompt: str | list[dict[str, str]]) -> str:
    if isinstance(prompt, str):
        return prompt
    text: str = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    return text


if __name__ == "__main__":
    main()
