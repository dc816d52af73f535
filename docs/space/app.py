"""The learning-rate designer as a Hugging Face Space."""

from hf_sched.designer.app import create_app, launch

launch(create_app(reads_runs=False), opens_browser=False)
