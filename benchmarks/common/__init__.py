"""Code that several benchmarks share: runs of the recipes, measured programs, intervals and tables."""
