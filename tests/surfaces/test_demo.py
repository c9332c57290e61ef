"""The first command of the README: everything starts, a day is played, and all of it is right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_small_trading_day_goes_as_expected(server_folder: Path) -> None:
    command = [sys.executable, "-m", "tongbao", "demo", "--exit", "--customers", "12"]
    environ = {**os.environ, "TONGBAO_DATA_DIR": str(server_folder / "demo")}

    played = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=300, check=False
    )

    assert played.returncode == 0, played.stdout + played.stderr
    assert "All as expected" in played.stdout
