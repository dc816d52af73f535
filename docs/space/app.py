"""The learning-rate designer as a Hugging Face Space."""

from hf_sched.designer.app import launch
from hf_sched.designer.start import Start

launch(Start(reads_runs=False), opens_browser=False)
