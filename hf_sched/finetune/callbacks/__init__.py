"""Trainer callbacks of the recipes: preemption, divergence, peer failure, progress and GRPO diagnostics."""
