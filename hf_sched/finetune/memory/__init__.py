"""Estimates the peak memory of a run on each process before the model is loaded, from the model's config.json alone.

`estimate.py` holds the formula, `run_settings.py` reads a run from a recipe's arguments, and `before_loading.py`
compares the estimate with the memory of the device.
"""

from hf_sched.finetune.memory.before_loading import check_memory
from hf_sched.finetune.memory.estimate import Estimate, alternative, estimate
from hf_sched.finetune.memory.run_settings import Run, read_config

__all__ = ["Estimate", "Run", "alternative", "check_memory", "estimate", "read_config"]
