"""Alerts in the experiment trackers of a run that have them: trackio and Weights & Biases."""

from __future__ import annotations

import importlib
import logging
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

logger = logging.getLogger(__name__)

WITH_ALERTS = ("trackio", "wandb")


def send_alert(args: Any, title: str, text: str, level: str = "ERROR") -> None:
    """Send an alert to the trackers in `report_to`; call it on the main process.

    Args:
        args: The TrainingArguments of the run.
        title: A few words, the same for all alerts of a kind.
        text: What happened and what to do.
        level: `INFO`, `WARN` or `ERROR`.
    """
    for name in WITH_ALERTS:
        if name not in args.report_to:
            continue
        try:
            tracker = importlib.import_module(name)
            with redirect_stdout(StringIO()):  # trackio also prints the alert, which the log already has
                tracker.alert(title=title, text=text, level=tracker.AlertLevel[level])
        except Exception as error:  # a tracker must not end the training
            logger.warning("the alert %r did not reach %s: %s", title, name, error)
