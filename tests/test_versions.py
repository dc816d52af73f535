"""What setup.cfg allows is tested: constraints-oldest.txt pins the oldest of each range, constraints.txt the newest."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from hf_sched.integrations.transformers import SUPPORTED

ROOT = Path(__file__).parents[1]
# Older ones come with CUDA alone, see constraints-oldest.txt.
NOT_TESTED_AT_ITS_OLDEST = {"torch"}


def requirements() -> dict[str, Requirement]:
    """What hf_sched and its recipes need, where setup.cfg gives a range."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    lines = [config["options"]["install_requires"], *(extras[name] for name in ("plot", "recipes", "deepspeed"))]
    needed = [Requirement(line) for text in lines for line in text.split("\n") if line and not line.startswith("#")]
    return {canonicalize_name(each.name): each for each in needed if each.specifier}


def pins(file: str) -> dict[str, Version]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(each.name): Version(str(each.specifier).removeprefix("==")) for each in pinned}


def bound(requirement: Requirement, operator: str) -> Version:
    (version,) = (each.version for each in requirement.specifier if each.operator == operator)
    return Version(version)


RANGES = requirements()
assert {"transformers", "torch", "trl", "accelerate"} <= set(RANGES)
OLDEST, NEWEST = pins("constraints-oldest.txt"), pins("constraints.txt")


@pytest.mark.parametrize("name", RANGES)
def test_a_range_begins_with_the_oldest_that_is_tested_and_holds_the_newest(name):
    assert OLDEST[name] <= NEWEST[name]
    assert OLDEST[name] in RANGES[name].specifier
    assert NEWEST[name] in RANGES[name].specifier
    if name not in NOT_TESTED_AT_ITS_OLDEST:
        lowest = bound(RANGES[name], ">=").release
        assert OLDEST[name].release[: len(lowest)] == lowest


def test_messages_and_readme_say_the_range():
    low, high = bound(RANGES["transformers"], ">="), bound(RANGES["transformers"], "<")
    assert f"transformers {low} to {high.major - 1}.x" == SUPPORTED
    assert (OLDEST["transformers"].major, OLDEST["transformers"].minor) == (low.major, low.minor)
    assert NEWEST["transformers"].major == high.major - 1
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for version in (OLDEST["transformers"], NEWEST["transformers"]):
        assert f"transformers {version.major}.{version.minor}" in readme
