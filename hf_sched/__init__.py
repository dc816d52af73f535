"""Learning-rate schedules for the Hugging Face Trainer, and for anything that takes an `lr_scheduler_type`.

`import hf_sched` registers the schedules: they are then values of `lr_scheduler_type` beside transformers' own. It
imports neither torch nor transformers.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hf_sched._version import __version__
from hf_sched.integrations import diffusers as _diffusers_hook
from hf_sched.integrations import transformers as _transformers_hook
from hf_sched.schedules import catalog as _catalog  # noqa: F401  (registers the schedules)
from hf_sched.schedules.phase_parser import GRAMMAR
from hf_sched.schedules.phases import Phase, decay, hold, restart, warmup
from hf_sched.schedules.registry import available, register
from hf_sched.schedules.schedule import Schedule
from hf_sched.schedules.schedule_text import build
from hf_sched.schedules.validation import ArgumentError, Count, Duration, DurationUnknown, Period, Positive, Rate, Ratio

if TYPE_CHECKING:
    from hf_sched.callbacks.hyperparameter_schedules import HyperparameterSchedules
    from hf_sched.callbacks.learning_rate_log import LearningRateLog
    from hf_sched.callbacks.live_cooldown import LiveControl
    from hf_sched.integrations.accelerate import prepare_scheduler
    from hf_sched.integrations.lightning import lightning
    from hf_sched.scheduler.anneal import anneal_from
    from hf_sched.scheduler.muon import MuonWithAdamW
    from hf_sched.scheduler.named_groups import param_groups
    from hf_sched.scheduler.schedule_lr import ScheduleLR, get_scheduler
    from hf_sched.schedules.recommend import recommend

__all__ = [
    "GRAMMAR",
    "ArgumentError",
    "Count",
    "Duration",
    "DurationUnknown",
    "HyperparameterSchedules",
    "LearningRateLog",
    "LiveControl",
    "MuonWithAdamW",
    "Period",
    "Phase",
    "Positive",
    "Rate",
    "Ratio",
    "Schedule",
    "ScheduleLR",
    "__version__",
    "anneal_from",
    "available",
    "build",
    "decay",
    "get_scheduler",
    "hold",
    "lightning",
    "param_groups",
    "prepare_scheduler",
    "recommend",
    "register",
    "restart",
    "warmup",
]

_transformers_hook.install()
_diffusers_hook.install()


# Imported when they are first used: most of them need torch, which takes seconds to import.
_LAZY = {
    "HyperparameterSchedules": "hf_sched.callbacks.hyperparameter_schedules",
    "LearningRateLog": "hf_sched.callbacks.learning_rate_log",
    "LiveControl": "hf_sched.callbacks.live_cooldown",
    "MuonWithAdamW": "hf_sched.scheduler.muon",
    "ScheduleLR": "hf_sched.scheduler.schedule_lr",
    "anneal_from": "hf_sched.scheduler.anneal",
    "get_scheduler": "hf_sched.scheduler.schedule_lr",
    "lightning": "hf_sched.integrations.lightning",
    "param_groups": "hf_sched.scheduler.named_groups",
    "prepare_scheduler": "hf_sched.integrations.accelerate",
    "recommend": "hf_sched.schedules.recommend",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
