"""Describes schedules for `hf-sched list`, `hf-sched show` and the documentation."""
