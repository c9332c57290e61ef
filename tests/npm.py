"""Clients for Node.js that others wrote, where `make clients` has put them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def node_with(folder: Path, package: str) -> str:
    """Return the node to run; the test is skipped without it or the package, unless required."""
    node = shutil.which("node")
    required = os.environ.get("TONGBAO_REQUIRE", "").split(",")
    if node is None:
        if "node" in required:
            pytest.fail("node is not installed")
        pytest.skip("node is not installed")
    if not (folder / "node_modules" / package).exists():
        reason = f"npm's {package} is not installed: run `make clients`"
        if "clients" in required:
            pytest.fail(reason)
        pytest.skip(reason)
    return node
