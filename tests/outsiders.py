"""Programs that others wrote, in environments of their own, and what else a machine may lack.

`make clients` puts them into ``.clients``. TONGBAO_REQUIRE names what may not be missing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
from cryptography.hazmat.primitives import serialization

_ROOT = Path(__file__).parents[1]
CLIENTS = _ROOT / ".clients"
DRIVERS = _ROOT / "tests" / "clients"


def lacking(what: str, reason: str) -> NoReturn:
    """Skip the test, or fail it where ``what`` is required."""
    if what in os.environ.get("TONGBAO_REQUIRE", "").split(","):
        pytest.fail(f"{reason}, and TONGBAO_REQUIRE asks for {what}")
    pytest.skip(reason)


def python_with(client: str) -> Path:
    """Return the interpreter of a client's own environment."""
    python = CLIENTS / client / "bin" / "python"
    if not python.exists():
        lacking("clients", f"{client} is not installed: run `make clients`")
    return python


def node() -> str:
    """Return the node to run."""
    return shutil.which("node") or lacking("node", "node is not installed")


def node_with(folder: Path, package: str) -> str:
    """Return the node to run, where npm has put a package into a folder."""
    found = node()
    if not (folder / "node_modules" / package).exists():
        lacking("clients", f"npm's {package} is not installed: run `make clients`")
    return found


def pkcs1(pem: str) -> str:
    """Return a private key in the form that Alipay's own client for Python reads."""
    key = serialization.load_pem_private_key(pem.encode(), None)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(
        serialization.Encoding.PEM, form, serialization.NoEncryption()
    ).decode()


def heard_from(command: Sequence[str | Path], given: Any, *, timeout_s: float = 60.0) -> Any:
    """Run a program with JSON on its standard input, and return the JSON that it writes."""
    run = subprocess.run(
        command,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)
