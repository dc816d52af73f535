"""Chooses the checkpoint to resume from and checks that it fits the run."""
