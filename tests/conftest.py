"""What all tests share: nothing reaches out of the machine, and torch leaves room for processes beside it."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CI"] = "1"  # TRL sends telemetry otherwise
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
