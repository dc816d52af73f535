"""One module per library: transformers, Accelerate, DeepSpeed, diffusers; and the `hf-sched run` launcher."""
