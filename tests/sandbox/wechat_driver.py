"""Runs PyPI's wechatpayv3, in an environment of its own, against a sandbox of its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.sandboxes import start_sandbox

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".clients" / "wechatpayv3" / "bin" / "python"


def heard_by(script: str, folder: Path) -> dict[str, Any]:
    """Return what a script of tests/clients/wechatpayv3 reports, and the keys it was given."""
    if not PYTHON.exists():
        reason = "wechatpayv3 is not installed: run `make clients`"
        if "clients" in os.environ.get("TONGBAO_REQUIRE", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
    with start_sandbox(folder) as sandbox:
        keys = sandbox.credentials["wechat"]
        run = subprocess.run(
            [PYTHON, ROOT / "tests" / "clients" / "wechatpayv3" / script],
            input=json.dumps({"url": sandbox.url, "credentials": keys}),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert run.returncode == 0, run.stderr
    return {"keys": keys, **json.loads(run.stdout)}
