"""Measures models on held-out problems and compares them: as a part of a recipe, or as `hf-sched evaluate`."""

from hf_sched.finetune.evaluation.arguments import EvaluationArguments

__all__ = ["EvaluationArguments"]
