"""Loads datasets and converts their rows to the form that a trainer expects."""

from hf_sched.finetune.data.conversion import to_demonstration, to_preference, to_problem

__all__ = ["to_demonstration", "to_preference", "to_problem"]
