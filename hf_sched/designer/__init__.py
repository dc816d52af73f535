"""The designer behind `hf-sched design`: shape the learning rate of a run in the browser. Requires the `ui` extra."""
