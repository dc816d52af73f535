"""Before the run: what it will do, what one sample teaches, and whether the rewards can tell right from wrong.

`--dry_run` shows all of it and ends there; every run shows the plan in a line, and the rest where something is wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hf_sched.finetune.rewards import Reward
from hf_sched.finetune.rewards.probe import probe
from hf_sched.plan import Plan, plan
from hf_sched.plan.printout import print_plan
from hf_sched.plan.training_config import RunConfig

SAMPLES = 64  # that are looked at for their stop token
_SETTLED = ("generation_batch_size",)  # made from another argument, beside which it must not stand


@dataclass
class PreviewArguments:
    """Look before the run."""

    dry_run: bool = field(
        default=False, metadata={"help": "Show the plan, a training sample and the rewards' probe; do not train."}
    )


def preview(trainer: Any, kind: str, *, in_full: bool, rewards: Sequence[Reward | str] = ()) -> None:
    """Show what a run will do and learn from, on the main process; shortly, unless `in_full`.

    Args:
        trainer: The trainer, before it trains.
        kind: `sft` or `grpo`.
        in_full: Whether to show all of it, or a line and what is wrong.
        rewards: Those of GRPO, as the trainer was given them.
    """
    if not trainer.is_world_process_zero():
        return
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    planned = plan_of(trainer, kind)
    if in_full:
        print_plan(planned, console)
    else:
        console.print(_in_a_line(planned))
    if kind == "sft":
        show_sample(trainer, console, in_full=in_full)
    if rewards:
        show_probe(trainer, rewards, console, in_full=in_full)


def plan_of(trainer: Any, kind: str) -> Plan:
    """The plan of the run that a trainer is about to begin."""
    args = trainer.args
    defaults = {one.name: one.default for one in dataclasses.fields(args)}
    # What was not given is none of the plan's business; some of it is settled only when the arguments are made.
    given = {
        name: value
        for name, value in args.to_dict().items()
        if name not in _SETTLED and value != defaults.get(name, dataclasses.MISSING)
    }
    dataset = trainer.train_dataset
    size = len(dataset) if hasattr(dataset, "__len__") else None
    if size is not None and "max_length" in defaults:
        given["max_length"] = None  # what TRL drops for its length is no longer among these
    return plan(RunConfig(kind, given, "This run"), dataset_size=size, world_size=args.world_size)


@dataclass(frozen=True)
class Sample:
    """A training sample as the model sees it."""

    parts: list[tuple[str, bool]]
    """Its text in pieces, and whether each is trained on."""
    ends_with_stop: bool
    """Whether what is trained on ends with a token that ends a generation, white space behind it aside."""

    @property
    def trained(self) -> int:
        """Pieces that are trained on."""
        return sum(trained for _, trained in self.parts)


def read_sample(trainer: Any, number: int) -> Sample:
    """A sample of the training data of an SFT trainer, as its collator makes it."""
    tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
    batch = trainer.data_collator([trainer.train_dataset[number]])
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    pieces = groupby(zip(ids, labels, strict=True), key=lambda pair: pair[1] != -100)
    parts = [(tokenizer.decode([token for token, _ in piece]), trained) for trained, piece in pieces]
    learned = [label for label in labels if label != -100]
    stop_tokens = _stop_tokens(trainer, tokenizer)
    # ChatML, and so Qwen and SmolLM, puts a line break behind the stop token.
    while learned and learned[-1] not in stop_tokens and not tokenizer.decode(learned[-1:]).strip():
        learned.pop()
    return Sample(parts, bool(learned) and learned[-1] in stop_tokens)


def show_sample(trainer: Any, console: Console, *, in_full: bool) -> None:
    """Show the first training sample with what of it is trained on, and how many end with a trained stop token."""
    dataset = trainer.train_dataset
    if not hasattr(dataset, "__len__"):
        return
    samples = [read_sample(trainer, number) for number in range(min(SAMPLES, len(dataset)))]
    if in_full:
        console.print("\n[bold]The first sample[/], with what is trained on in «green»")
        marked = (("«" + text + "»", "green") if trained else (text, "dim") for text, trained in samples[0].parts)
        console.print(Text.assemble(*marked))
    blank = sum(not sample.trained for sample in samples)
    if blank:
        _warn(console, f"{blank} of the first {len(samples)} samples have nothing to train on")
    stopping = sum(sample.ends_with_stop for sample in samples)
    told = f"the stop token is trained in {stopping} of the first {len(samples)} samples"
    if 2 * stopping < len(samples):
        _warn(
            console,
            f"{told}: the model may never learn to stop. `max_length` may cut the samples off, or the chat template "
            "leave the token out of what is trained (`eos_token`, `assistant_only_loss`)",
        )
    elif in_full:
        console.print(told)


def show_probe(trainer: Any, rewards: Sequence[Reward | str], console: Console, *, in_full: bool) -> None:
    """Show what each reward gives to a right answer, a wrong one and none; warn if right answers earn nothing."""
    tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
    probed = probe(rewards, next(iter(trainer.train_dataset)), trainer.args.reward_weights, tokenizer)
    if probed is None:
        if in_full:
            console.print("\nThe rewards are not tried: the data have no column with right answers")
        return
    probes, most = probed
    if in_full:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for title in ("reward", "right answer", "written", "wrong", "nothing"):
            table.add_column(title)
        for one in probes:
            table.add_row(one.name, f"{one.gold:g}", repr(one.rendering), f"{one.wrong:g}", f"{one.empty:g}")
        console.print("\n[bold]The rewards[/], for answers to the first problem")
        console.print(table)
    for one in probes:
        if one.gold <= 0 and not one.is_penalty:
            _warn(console, f"the reward {one.name!r} gives {one.gold:g} to the right answer, however it is written")
    if most <= 0:
        _warn(console, f"all rewards together give {most:g} to the right answer: nothing would be learned")


def _in_a_line(planned: Plan) -> str:
    epochs = "" if planned.epochs is None else f" ({planned.epochs:.3g} epochs)"
    schedule = planned.schedule or planned.schedule_name
    rates = "" if planned.last_lr is None else f", peak {planned.peak_lr:.4g}, last {planned.last_lr:.4g}"
    return (
        f"{planned.num_training_steps} optimizer steps{epochs} of {planned.effective_batch} "
        f"{'completions' if planned.grpo else 'samples'}; learning rate: {schedule}{rates}"
    )


def _stop_tokens(trainer: Any, tokenizer: Any) -> set[int]:
    """The tokens that end a generation, by the model's generation settings and the tokenizer."""
    configured = getattr(getattr(trainer.model, "generation_config", None), "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return {token for token in (*listed, tokenizer.eos_token_id) if token is not None}


def _warn(console: Console, what: str) -> None:
    console.print(f"[bold yellow]warning[/] {what}", soft_wrap=True)
