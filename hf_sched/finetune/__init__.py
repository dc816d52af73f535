"""The fine-tuning pipeline behind `recipes/`. It needs the `recipes` extra."""
