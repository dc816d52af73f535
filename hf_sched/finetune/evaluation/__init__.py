"""Measures models on held-out problems and compares them."""
