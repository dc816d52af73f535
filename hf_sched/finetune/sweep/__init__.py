"""Finds the peak learning rate by short runs of a recipe (`hf-sched sweep`).

`grid` reads the points to try, `halving` decides which runs come next, `trial` trains one of them, `worker` shares the
runs between processes through an Optuna storage, and `verdict` says what they show.
"""
