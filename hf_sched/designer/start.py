"""What the page shows first: the default, a configuration, or a past run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hf_sched.designer.other_programs import Pasted, read_pasted
from hf_sched.designer.page import Design
from hf_sched.designer.past_run import requested
from hf_sched.designer.run_form import RunForm
from hf_sched.reference.named_schedule import NamedSchedule
from hf_sched.scheduler.resume import split_on_resume


@dataclass(frozen=True)
class Start:
    """What the page shows first."""

    form: RunForm = field(default_factory=RunForm)
    schedules: tuple[NamedSchedule, ...] = (NamedSchedule("cosine_floor"), NamedSchedule("cosine"))
    text: str = ""
    """The text of a configuration."""
    pasted: Pasted | None = None
    """The same, read."""
    run: str = ""
    """The folder of a past run."""
    extra: tuple[type, ...] = ()
    """Dataclasses of a script's further arguments, for the check of configurations."""
    reads_runs: bool = True
    """Whether the page may read the folders of runs on this machine."""

    @classmethod
    def of(
        cls,
        path: Path | None,
        dataset_size: int | None = None,
        num_processes: int | None = None,
        extra: tuple[type, ...] = (),
    ) -> Start:
        """Start with a configuration file or the folder of a run, for editing; None for the default.

        Raises:
            ValueError: The path is neither, or the configuration cannot be planned.
        """
        if path is None:
            return cls(extra=extra)
        if path.is_dir():
            form, schedule = requested(path)
            return cls(form, (schedule,), run=f"{path}", extra=extra)
        if not path.is_file():
            raise ValueError(f"there is no file or folder {str(path)!r}")
        text = path.read_text(encoding="utf-8")
        pasted = read_pasted(text, dataset_size=dataset_size, num_processes=num_processes, extra=extra)
        form, schedule = design_of(pasted)
        return cls(form, (schedule,), text, pasted, extra=extra)

    @property
    def designs(self) -> list[Design]:
        """The schedules as designs."""
        return [{"id": n, "name": s.name, "arguments": dict(s.arguments)} for n, s in enumerate(self.schedules)]


def design_of(pasted: Pasted) -> tuple[RunForm, NamedSchedule]:
    """The form and the schedule of a configuration; raises a ValueError if it cannot be planned."""
    if pasted.plan is None:
        raise ValueError(pasted.problem)
    arguments = split_on_resume(pasted.config.mapping("lr_scheduler_kwargs"))[1]
    return RunForm.of_config(pasted.config, pasted.plan), NamedSchedule(pasted.plan.schedule_name, arguments)
