"""Failpoints: named places where a test makes the process die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tongbao.infra.failpoints import FailpointMalformed, SimulatedCrash, arm, failpoint

PROGRAM = """
from tongbao.infra.failpoints import failpoint
for passage in range(4):
    failpoint("demo.step")
    print(passage, flush=True)
"""


def run_with(spec: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "TONGBAO_FAILPOINT": spec},
        capture_output=True,
        text=True,
        check=False,
    )


def test_unarmed_it_does_nothing() -> None:
    failpoint("demo.step")


def test_armed_it_kills_the_process_at_the_first_passage() -> None:
    died = run_with("demo.step:kill9")
    assert (died.returncode, died.stdout) == (-signal.SIGKILL, "")


def test_armed_it_kills_the_process_at_the_nth_passage() -> None:
    died = run_with("demo.step:kill9:3")
    assert (died.returncode, died.stdout) == (-signal.SIGKILL, "0\n1\n")


def test_another_name_passes() -> None:
    assert run_with("demo.other:kill9").returncode == 0


def test_a_raised_crash_is_not_survived_by_what_survives_bugs() -> None:
    arm("demo.step:raise:2")
    failpoint("demo.step")
    with pytest.raises(SimulatedCrash, match=r"demo\.step"):
        failpoint("demo.step")
    assert not issubclass(SimulatedCrash, Exception)
    failpoint("demo.step")  # once only


def test_recording_keeps_the_order_of_the_passages(tmp_path: Path) -> None:
    assert run_with(f"record:{tmp_path / 'passed'}").returncode == 0
    assert (tmp_path / "passed").read_text() == "demo.step\n" * 4


@pytest.mark.parametrize("spec", ["demo.step", "demo.step:explode", ":kill9", "demo.step:kill9:x"])
def test_a_text_that_means_nothing_is_refused(spec: str) -> None:
    with pytest.raises(FailpointMalformed):
        arm(spec)
