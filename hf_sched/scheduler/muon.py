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
    """The parts hold the very groups of this optimizer, also after `load_state_dict`, so only its own are scheduled."""

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
        parts = [(torch.optim.Muon, True, muon), (AdamW, False, adamw)]
        of_parts = [(cls, self._groups_of(is_muon), options) for cls, is_muon, options in parts]
        # They share the groups and the state of this optimizer, and add their own settings to the groups.
        self._parts = [cls(own, **options) for cls, own, options in of_parts if own]
        self._share()

    def _groups_of(self, is_muon: bool) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group["use_muon"] == is_muon]

    def _share(self) -> None:
        for part in self._parts:
            part.state, part.param_groups = self.state, self._groups_of(not isinstance(part, AdamW))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Called by `load_state_dict`, which replaces the groups and the state."""
        super().__setstate__(state)
        self._share()

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
            part.step()
        return loss
