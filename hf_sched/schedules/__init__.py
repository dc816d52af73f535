"""A schedule as an immutable value: shapes, phases, the phase parser, the registry and the catalog. NumPy only."""
