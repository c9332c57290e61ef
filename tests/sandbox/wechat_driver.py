"""Runs PyPI's wechatpayv3, in an environment of its own, against a sandbox of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.outsiders import DRIVERS, heard_from, python_with
from tests.sandboxes import start_sandbox

CLIENT = "wechatpayv3"


def heard_by(script: str, folder: Path) -> dict[str, Any]:
    """Return what a script of tests/clients/wechatpayv3 reports, and the keys it was given."""
    python = python_with(CLIENT)
    with start_sandbox(folder) as sandbox:
        keys = sandbox.credentials["wechat"]
        command = [python, DRIVERS / CLIENT / script]
        given = {"url": sandbox.url, "credentials": keys}
        return {"keys": keys, **heard_from(command, given, timeout_s=120.0)}
