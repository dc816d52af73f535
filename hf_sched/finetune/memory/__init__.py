"""Estimates the peak memory of a run on each process before the model is loaded, from the model's config.json alone.

`estimate.py` holds the formula, `read.py` reads a run from a recipe's arguments, `check.py` compares it with the memory
of the device. Nothing is built or traced.
"""

from hf_sched.finetune.memory.before_loading import check_memory
from hf_sched.finetune.memory.estimate import Estimate, alternatives, estimate
from hf_sched.finetune.memory.run_settings import Run, read_config

__all__ = ["Estimate", "Run", "alternatives", "check_memory", "estimate", "read_config"]
