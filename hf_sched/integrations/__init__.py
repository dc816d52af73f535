"""One file per library (transformers has two: names and Trainer hooks), and the `hf-sched run` launcher."""
