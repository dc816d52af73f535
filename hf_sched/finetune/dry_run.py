"""What a run will do and learn from: its plan, a training sample or pair, and what the rewards give.

`--dry_run` shows all of it and stops there. Every other run shows only warnings of it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, islice
from typing import Any

from rich.table import Table
from rich.text import Text

from hf_sched.check.peak import usual_peaks
from hf_sched.finetune.arguments import RECIPE_ARGUMENTS
from hf_sched.finetune.rewards import Reward
from hf_sched.finetune.rewards.probe import probe
from hf_sched.plan import Plan, plan
from hf_sched.plan.printout import print_plan
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.plots.console import console
from hf_sched.scheduler.group_schedule import OWN_SCHEDULE

logger = logging.getLogger(__name__)

SAMPLES = 64  # checked for a trained stop token


def show_plan(planned: Plan, data: str, arguments: Mapping[str, Any], groups: Sequence[Mapping[str, Any]] = ()) -> None:
    """Show the plan of the run with these arguments, the usual peaks of such a run, its data and parameter groups."""
    print_plan(planned, console())
    if usual := usual_peaks(planned.kind, arguments.get, planned.effective_batch):
        console().print(Text(f"usual peak: {usual}"))
    console().print(Text(f"data: {data}"))
    if groups:
        titles = ("parameter group", "parameters", "peak", "weight decay", "schedule")
        table = Table(*titles, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for group in groups:
            size = sum(parameter.numel() for parameter in group["params"])
            numbers = (f"{size:,}", f"{group['lr']:.4g}", f"{group['weight_decay']:g}")
            table.add_row(Text(group["name"]), *numbers, Text(group.get(OWN_SCHEDULE, "that of the run")))
        console().print("\n", table)


def plan_of(
    args: Any,
    rows: Any,
    kind: str,
    others: Mapping[str, Any] | None = None,
    tokens_per_sample: Callable[[], float] | None = None,
) -> Plan:
    """Return the plan of a run with these arguments of the Trainer and of the recipe, and these training rows."""
    defaults = {field.name: field.default for field in dataclasses.fields(args)}
    given = {name: value for name, value in args.to_dict().items() if value != defaults.get(name, dataclasses.MISSING)}
    given.pop("generation_batch_size", None)  # computed from other arguments, beside which it must not be given
    size = len(rows) if hasattr(rows, "__len__") else None
    config = TrainingConfig(kind, {**given, **(others or {})}, "This run", extra=RECIPE_ARGUMENTS)
    return plan(config, dataset_size=size, num_processes=args.world_size, tokens_per_sample=tokens_per_sample)


def show_sample(trainer: Any, *, in_full: bool) -> None:
    """Show the first sample with its trained text marked; warn if samples have none, or no trained stop token."""
    rows = list(islice(iter(trainer.train_dataset), SAMPLES)) if hasattr(trainer.train_dataset, "__len__") else []
    if not rows:
        return
    batches = [trainer.data_collator([row]) for row in rows]
    samples = [(batch["input_ids"][0].tolist(), batch["labels"][0].tolist()) for batch in batches]
    tokenizer, out = _tokenizer(trainer), console()
    if in_full:
        out.print("\n[bold]The first sample[/], with the trained text in «green»")
        parts = []
        for is_trained, pairs in groupby(zip(*samples[0], strict=True), key=lambda pair: pair[1] != -100):
            text = tokenizer.decode([token for token, _ in pairs])
            parts.append((f"«{text}»", "green") if is_trained else (text, "dim"))
        out.print(Text.assemble(*parts))
    trained = [[label for label in labels if label != -100] for _, labels in samples]
    if in_full:
        total = sum(len(tokens) for tokens, _ in samples)
        share = sum(len(tokens) for tokens in trained) / total
        out.print(
            f"trained on {share:.0%} of the tokens of the first {len(samples)} samples; `completion_only_loss: true` "
            "trains on the last turn only, `assistant_only_loss: true` on all turns of the assistant"
        )
    if untrained := sum(not tokens for tokens in trained):
        logger.warning(f"{untrained} of the first {len(samples)} samples have no trained text")
    configured = trainer.model.generation_config.eos_token_id
    stop_tokens = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])} - {None}
    stopping = sum(_ends_with_stop(tokens, stop_tokens, tokenizer) for tokens in trained)
    summary = f"the stop token is trained in {stopping} of the first {len(samples)} samples"
    if 2 * stopping < len(samples):
        causes = "`max_length` cuts the samples off, or the chat template leaves the token out of the trained text"
        logger.warning(f"{summary}: the model may never learn to stop. Possibly {causes} (`eos_token`)")
    elif in_full:
        out.print(summary)


def _ends_with_stop(tokens: list[int], stop_tokens: set[int], tokenizer: Any) -> bool:
    # ChatML, and so Qwen and SmolLM, puts a line break after the stop token.
    while tokens and tokens[-1] not in stop_tokens and not tokenizer.decode(tokens[-1:]).strip():
        tokens = tokens[:-1]
    return bool(tokens) and tokens[-1] in stop_tokens


def show_pair(trainer: Any, *, in_full: bool) -> None:
    """Show the first preference pair; warn if the two answers are often equal."""
    pairs = list(islice(iter(trainer.train_dataset), SAMPLES))
    if in_full:
        out, tokenizer = console(), _tokenizer(trainer)
        out.print("\n[bold]The first pair[/]")
        for part, style in (("prompt", "dim"), ("chosen", "green"), ("rejected", "red")):
            out.print(Text.assemble(f"{part}: ", (tokenizer.decode(pairs[0][f"{part}_ids"]), style)))
    if equal := sum(pair["chosen_ids"] == pair["rejected_ids"] for pair in pairs):
        logger.warning(f"the chosen and the rejected answer are equal in {equal} of the first {len(pairs)} pairs")


def show_probe(trainer: Any, rewards: Sequence[Reward | str], *, in_full: bool) -> None:
    """Show what each reward gives to a right, a wrong and an empty answer; warn of rewards that cannot tell them."""
    row, *others = islice(iter(trainer.train_dataset), SAMPLES)
    probes = probe(rewards, row, _tokenizer(trainer), others)
    if in_full and probes:
        titles = ("reward", "right answer", "written", "wrong", "empty")
        table = Table(*titles, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for one in probes:
            scores = ["none" if score is None else f"{score:g}" for score in (one.gold, one.wrong, one.empty)]
            table.add_row(one.name, scores[0], repr(one.rendering), *scores[1:])
        console().print("\n[bold]The rewards[/], for answers to the first problem\n", table)
        console().print(Text(f"right answer {probes[0].right_answer!r}, wrong answer {probes[0].wrong_answer!r}"))
    for one in probes:
        if one.warning:
            logger.warning(one.warning)
    if probes and all(one.gold == one.wrong for one in probes):
        logger.warning("no reward tells the right answer to the first problem from a wrong one")


def _tokenizer(trainer: Any) -> Any:
    return getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
