"""transformers' `Trainer` in a script: `train_trainer.py MODEL --output_dir ... --lr_scheduler_type ...`."""

import sys

import torch
from transformers import AutoModelForCausalLM, HfArgumentParser, Trainer, TrainingArguments

(args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(sys.argv[2:])
rows = [{"input_ids": torch.arange(6, 16), "labels": torch.arange(6, 16)}] * 64
Trainer(AutoModelForCausalLM.from_pretrained(sys.argv[1]), args, train_dataset=rows).train()
