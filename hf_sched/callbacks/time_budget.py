"""A time budget: when a run must have ended, and when it must begin its cooldown for that."""

from __future__ import annotations

import math
import os
import re
import subprocess
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from statistics import fmean, pstdev

from hf_sched.scheduler.anneal import cooldown_phase
from hf_sched.schedules.validation import ArgumentError, Duration, Reader

DEFAULT_RESERVE = 0.02
"""The share of the budget that is kept free for the last evaluation and for saving, until both were measured."""
_PARTS = ("days", "hours", "minutes", "seconds")
_DURATION = re.compile("".join(rf"(?:(?P<{part}>\d+(?:\.\d+)?){part[0]})?" for part in _PARTS))
# The time of a step is the mean of as many recent ones as are left, within these bounds.
_FEWEST, _MOST = 8, 1000
# Standard deviations of the last steps that are kept free; if more is missing, there is time to shorten the cooldown.
_MARGIN, _LAST = 1.0, 16
_MARGIN_OF_PAUSES = 1.1


class TimeReader(Reader):
    """A duration as text with units, in seconds."""

    allowed = 'a duration with units ("90m", "2h30m", "1d2h", "3600s")'

    def __call__(self, name: str, value: object) -> float:
        text = value.replace(" ", "") if isinstance(value, str) else ""
        found = _DURATION.fullmatch(text)
        if not text or not found:
            raise ArgumentError(name, self.allowed, value)
        return timedelta(**{part: float(number or 0) for part, number in found.groupdict().items()}).total_seconds()


@dataclass(frozen=True)
class TimeBudget:
    """The time in which a run must end."""

    text: str
    seconds: float | None = None
    """The duration, if it is one."""
    end: float | None = None
    """The Unix time, if it is a time of the clock. Otherwise it is the end of the Slurm job."""

    @classmethod
    def parse(cls, value: object, now: float) -> TimeBudget:
        """Read a duration, a time of the clock after `now` (a Unix time), or "slurm".

        Raises:
            ArgumentError: The value has another form, or the time is in the past.
        """
        name, allowed = "time_budget", f'{TimeReader.allowed}, a time ("18:00", "2026-11-28 18:00") or "slurm"'
        text = str(value) if isinstance(value, (str, date)) else ""  # YAML reads a date with a time as one
        if text == "slurm":
            return cls(text)
        if ":" in text or "-" in text:
            try:
                end = _next(text.strip().replace("Z", "+00:00"), datetime.fromtimestamp(now).astimezone())
            except ValueError:
                raise ArgumentError(name, allowed, value) from None
            if end.timestamp() <= now:
                raise ArgumentError(name, rule="is in the past", received=text)
            return cls(text, end=end.timestamp())
        try:
            seconds = TimeReader()(name, value)
        except ArgumentError:
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            hint = "a number has no unit, and YAML reads 18:00 without quotes as a number" if is_number else ""
            raise ArgumentError(name, allowed, value, hint) from None
        if not seconds:
            raise ArgumentError(name, rule="must be longer than 0 seconds", received=value)
        return cls(text, seconds)

    def deadline(self, started: float) -> float:
        """The Unix time at which the run must have ended, if a duration began at `started`.

        Raises:
            ArgumentError: The budget is "slurm" outside a Slurm job.
        """
        if self.seconds is not None:
            return started + self.seconds
        return _end_of_slurm_job() if self.end is None else self.end

    def __str__(self) -> str:
        return self.text


def _next(text: str, now: datetime) -> datetime:
    """The time that a text in ISO format names, of today or tomorrow if it has no date; local without a zone."""
    if "-" in text[:5]:
        return datetime.fromisoformat(text).astimezone()
    clock = time.fromisoformat(text)
    today = datetime.combine(now.astimezone(clock.tzinfo).date(), clock)
    return today if today.astimezone() > now else today + timedelta(days=1)


def _end_of_slurm_job() -> float:
    """The Unix time of the job's time limit, from its environment (Slurm 23 and later) or from Slurm itself."""
    if end := os.environ.get("SLURM_JOB_END_TIME"):
        return float(end)
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        raise ArgumentError("time_budget", rule="is slurm, but this is no Slurm job (it has no `SLURM_JOB_ID`)")
    environment = {**os.environ, "SLURM_TIME_FORMAT": "standard"}
    try:
        command = ["squeue", "--noheader", "--jobs", job, "--format", "%e"]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
        return datetime.fromisoformat(found.strip()).timestamp()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        rule = f"is slurm, but the end of job {job} is unknown ({' '.join(str(error).split())})"
        raise ArgumentError("time_budget", rule=rule, hint="give the time itself") from None


def foreign_schedule(name: str) -> ArgumentError:
    """The error for a time budget with a schedule that is not of hf_sched and cannot change during a run."""
    hint = "`wsd`, or `phases` with `warmup 3% | hold` for a constant rate"
    return ArgumentError("time_budget", rule=f"needs an `lr_scheduler_type` of hf_sched, not {name!r}", hint=hint)


class Deadline:
    """Measures the steps and pauses of a run, and decides when its cooldown must begin or become shorter.

    Args:
        end: The Unix time at which the run must have ended.
        reserve: Seconds between the last step and the end, if the evaluations and checkpoints so far were not longer.
        duration: Of the cooldown, as in `hf_sched.anneal_from`.
        every: The steps between two pauses of a kind, `evaluation` or `checkpoint`; None if they are unknown.
        clock: Returns the Unix time.
    """

    def __init__(
        self,
        end: float,
        reserve: float,
        duration: Duration,
        every: Mapping[str, int | None],
        clock: Callable[[], float],
    ) -> None:
        self.end, self.reserve, self.duration = end, reserve, duration
        self.next_look = 0
        """The step after which to decide again."""
        self._every, self._clock = every, clock
        self._times = {kind: deque[float](maxlen=_MOST) for kind in ("step", *every)}
        self._mark, self._last = clock(), ""

    def measure(self, kind: str) -> None:
        """Count the time since the last event as a step, an evaluation or a checkpoint."""
        now, times = self._clock(), self._times[kind]
        if kind == self._last != "step":  # on several sets of data, one evaluation follows another
            times[-1] += now - self._mark
        else:
            times.append(now - self._mark)
        self._mark, self._last = now, kind

    @property
    def _is_first(self) -> bool:
        """Whether only the first step was measured, which is often slow."""
        return len(self._times["step"]) == 1

    @property
    def left(self) -> float:
        """The seconds before the deadline."""
        return self.end - self._clock()

    def decide(self, step: int, end: int, *, is_cooling: bool) -> int | None:
        """The steps of the cooldown to begin after `step`, or to shorten the present one to; None for no change.

        `end` is the number of optimizer steps of the run.
        """
        left, fitting = end - step, self._fitting(step)
        if is_cooling:
            self.next_look = step + max(left // 8, 1)
            return max(fitting, 1) if fitting < left and not self._is_first else None
        slack = fitting - 1 - self._wanted(step + 1)
        self.next_look = step + max(slack // 4, 1)
        if slack >= 0 or fitting >= left or self._is_first:
            return None
        return min(max(fitting, 1), self._wanted(step))

    def _wanted(self, step: int) -> int:
        return cooldown_phase(self.duration, "linear", step)[0]

    def _fitting(self, step: int) -> int:
        """How many more steps fit, with their pauses, the last evaluation and saving."""
        measured = list(self._times["step"])[1:] or [*self._times["step"]]
        longest = {kind: max(self._times[kind], default=0.0) for kind in self._every}
        # The last checkpoint is followed by the model itself.
        reserve = max(self.reserve, _MARGIN_OF_PAUSES * (longest["evaluation"] + 2 * longest["checkpoint"]))
        left = self.left - reserve
        most = max(int(left / max(fmean(measured), 1e-6)), 0)
        recent = measured[-max(most, _FEWEST) :]
        mean, spread = fmean(recent), pstdev(recent)

        def seconds(count: int) -> float:
            pauses = sum(
                fmean(self._times[kind]) * ((step + count - 1) // every - (step - 1) // every)
                for kind, every in self._every.items()
                if every and self._times[kind]
            )
            return count * mean + _MARGIN * spread * math.sqrt(min(count, _LAST)) + pauses

        return bisect_right(range(most + 1), left, lo=1, key=seconds) - 1
