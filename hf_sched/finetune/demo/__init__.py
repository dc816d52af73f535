"""Small models and datasets that need no download."""
