"""Alipay's own Python client meets the simulated Alipay and is satisfied with it.

It connects to port 80 whatever port its address names (and fails when it names one), so the sandbox
must listen there: without the right to, or when somebody else does, there is nothing to run.
"""

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from tongbao_sandbox.launch import start_sandbox

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".clients" / "alipay_sdk_python" / "bin" / "python"
DRIVE = ROOT / "tests" / "clients" / "alipay_sdk_python" / "drive.py"
PORT = 80


def why_not() -> str:
    if not PYTHON.exists():
        return "alipay-sdk-python is not installed: run `make clients`"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError as failure:
            return f"alipay-sdk-python connects to port 80 only, and it is not ours: {failure}"
    return ""


def pkcs1(pem: str) -> str:
    """The form of private key which that client reads."""
    key = serialization.load_pem_private_key(pem.encode(), None)
    raw = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return raw.decode()


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    if reason := why_not():
        if not PYTHON.exists() and "clients" in os.environ.get("TONGBAO_REQUIRE", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
    with start_sandbox(tmp_path_factory.mktemp("sandbox"), port=PORT) as sandbox:
        shown = sandbox.credentials["alipay"]
        given = {
            "url": "http://127.0.0.1",
            "credentials": shown,
            "private_key": pkcs1(shown["app_private_key_pem"]),
        }
        run = subprocess.run(
            [PYTHON, DRIVE],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_it_shows_a_code_and_sees_the_payment(heard):
    assert heard["precreate"]["ok"]
    assert heard["unscanned"]["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    assert heard["query"]["trade_status"] == "TRADE_SUCCESS"
    assert heard["query"]["total_amount"] == "12.30"


def test_it_opens_a_trade_and_refunds(heard):
    assert heard["create"]["ok"]
    assert len(heard["create"]["trade_no"]) == 28
    assert heard["refund"] == {"ok": True, "fund_change": "Y"}


def test_what_it_signs_for_a_browser_and_an_app_is_paid(heard):
    assert (heard["page"], heard["app"]) == ("paid", "paid")


def test_it_rejects_a_bad_signature(heard):
    assert heard["bad_signature"]
