"""Applies a schedule to an optimizer: the torch scheduler, parameter groups, checkpoints and resume."""
