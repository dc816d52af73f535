"""Muon for the matrices of hidden layers, and AdamW for all other parameters, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import AdamW, Optimizer

from hf_sched.schedules.validation import ArgumentError


class MuonWithAdamW(Optimizer):
    """Trains the groups that have `use_muon` with `torch.optim.Muon`, and the others with `torch.optim.AdamW`.

    Muon scales its updates to the size of AdamW's (`match_rms_adamw`; Liu et al. 2025, arXiv 2502.16982), so that a
    learning rate for AdamW suits both.

    Args:
        groups: The groups of `hf_sched.param_groups` with a `muon_learning_rate`.
        lr: The learning rate of groups that have none.
        weight_decay: The weight decay of groups that have none.
        momentum: The momentum of Muon.
        **adamw: Arguments of AdamW.

    Raises:
        ArgumentError: The installed torch has no Muon (it is new in torch 2.9).
    """

    shares_its_groups = True
    """Each step of the parts uses the very groups of this optimizer, so only its own are scheduled."""

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        **adamw: Any,
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ArgumentError("optimizer", rule="'muon' needs torch 2.9 or later", received=torch.__version__)
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "use_muon": False})
        muon = {"momentum": momentum, "adjust_lr_fn": "match_rms_adamw"}
        self._parts: list[Optimizer] = []
        for part, is_muon, options in ((torch.optim.Muon, True, muon), (AdamW, False, adamw)):
            if own := self._groups_of(is_muon):
                self._parts.append(part(own, **options))  # adds its settings to the groups

    def _groups_of(self, is_muon: bool) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group["use_muon"] == is_muon]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; after construction, only to a part that has groups already."""
        super().add_param_group(param_group)
        for part in getattr(self, "_parts", ()):
            if param_group["use_muon"] != isinstance(part, AdamW):
                part.add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make a step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            # They have the groups and the state of this optimizer, which `load_state_dict` replaces.
            part.state, part.param_groups = self.state, self._groups_of(not isinstance(part, AdamW))
            part.step()
        return loss
