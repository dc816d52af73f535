"""Estimates the peak memory of a run on each process before the model is loaded, from the model's config.json alone."""
