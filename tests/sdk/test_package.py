"""The SDK is a package of its own: typed, built, and importable where no platform is."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SDK = ROOT / "sdk" / "python"

RIGHT = """
from http.server import BaseHTTPRequestHandler
from tongbao_sdk import Tongbao, verify_webhook
from tongbao_sdk.models import Method
from tongbao_sdk.replies import Payment

def sell(shop: Tongbao, code: str) -> int:
    method: Method = {"mode": "payment_code", "auth_code": code}
    kept: list[str] = []
    payment = shop.payments.create(
        merchant_order_no="1", amount=1999, subject="tea", method=method, remember=kept.append
    )
    if payment["status"] == "succeeded":
        return payment["amount_captured"]
    open_ones: list[Payment] = list(shop.payments.list(status="pending"))
    return len(open_ones)

def hear(headers: dict[str, str], body: bytes) -> str:
    return verify_webhook(headers, body, public_keys=["whpk_"])["type"]

class Hooks(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        event = verify_webhook(self.headers, b"", public_keys=["whpk_"])
        print(event["data"]["object"])
"""
WRONG = {
    'shop.payments.create(merchant_order_no="1", amount="1", subject="t", method=m)': "arg-type",
    'shop.payments.create(merchant_order_no="1", subject="t", method=m)': "call-arg",
    'shop.payments.close("pay_1", idempotency_kye="k")': "call-arg",
    'shop.payments.get("pay_1")["amount_capured"]': "typeddict-item",
    'shop.payments.get("pay_1")["status"] == "paid"': "comparison-overlap",
}


def test_programs_are_checked_against_the_sdks_types(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(RIGHT)
    head = "from tongbao_sdk import Tongbao\nfrom tongbao_sdk.models import Method\n"
    head += 'm: Method = {"mode": "qr", "channel": "alipay"}\n'
    wrong.write_text(head + "def f(shop: Tongbao) -> None:\n    " + "\n    ".join(WRONG) + "\n")

    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", str(right), str(wrong)],
        cwd=tmp_path,
        env={"MYPYPATH": str(SDK), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    errors = [line for line in run.stdout.splitlines() if ": error:" in line]
    assert [line for line in errors if not line.startswith("wrong.py")] == [], run.stdout
    assert [line.rpartition("[")[2].rstrip("]") for line in errors] == list(WRONG.values())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=SDK,
        check=True,
        capture_output=True,
    )
    [built] = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_sdk_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        metadata = packed.read(next(name for name in names if name.endswith("METADATA"))).decode()

    modules = {path.name for path in (SDK / "tongbao_sdk").iterdir() if path.is_file()}
    assert {name for name in names if "dist-info" not in name} == {
        f"tongbao_sdk/{name}" for name in modules
    }
    assert "Name: tongbao-sdk" in metadata
    assert {line for line in metadata.splitlines() if line.startswith("Requires-Dist")} == {
        "Requires-Dist: cryptography",
        "Requires-Dist: httpx2",
    }


def test_it_works_where_there_is_no_platform(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path)
    program = """
import importlib.util, sys
assert importlib.util.find_spec("tongbao") is None
import tongbao_sdk
shop = tongbao_sdk.Tongbao("http://127.0.0.1:9", key_id="k", secret="s", tries_max=1)
try:
    shop.payments.find("1")
except tongbao_sdk.Unanswered:
    assert not [name for name in sys.modules if name.split(".")[0] == "tongbao"]
    print(tongbao_sdk.__version__, tongbao_sdk.__file__)
"""
    # Without `site` no .pth file brings the platform's own tree in.
    run = subprocess.run(
        [sys.executable, "-S", "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{sysconfig.get_path('purelib')}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    version, place = run.stdout.split()
    assert version in wheel.name
    assert place.startswith(str(tmp_path))
