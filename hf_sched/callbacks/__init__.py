"""Trainer callbacks: the guard, the learning-rate log and the live cooldown."""
