"""Measurements of hf_sched: one folder per question, each with the command `python -m benchmarks.FOLDER.run`."""
