"""An example of a package that publishes schedules; two of its entry points in pyproject.toml are wrong."""

import hf_sched


def trapezoid(*, cooldown: hf_sched.Duration = "20%"):
    """Hold the peak, then decay linearly to the floor."""
    return [hf_sched.hold(), hf_sched.decay(cooldown)]


@hf_sched.register("published_half", floor_ratio=0.5)
def half():
    """Decay linearly to half of the peak."""
    return [hf_sched.decay()]
