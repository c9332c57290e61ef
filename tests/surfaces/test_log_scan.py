"""What must never be in a log is found in one, by its line, and what may be there is left alone."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tests.surfaces.commands import Cli
from tongbao.infra.telemetry import set_up_logging
from tongbao.kernel.ids import new_id, show
from tongbao.surfaces.invariants.log_scan import scan_log

CARD = "4111111111111111"  # a scheme's own test number
LEAKS = {
    "card": f'{{"event": "paid", "note": "card {CARD}"}}',
    "secret": '{"event": "signed", "api_key": "abcdefgh12345678"}',
    "resident": '{"event": "seen", "who": "110101199003078777"}',
    "key": "sent with sk_live_" + "a1B2c3D4" * 4,
    "webhook": "whsec_" + "a1B2c3D4" * 4,
    "phone": '{"to": "13800138000"}',
    "phone abroad": "call +86 13800138000",
    "far out": "x" * 40_000 + f" {CARD} " + "y" * 40_000,
    "on the edge": "x" * 15_993 + f" {CARD}",
}
FINE = (
    '{"event": "payment", "id": "pay_01m822yfdqfd1t3ft28khcjw44", "amount": 1999}',
    '{"event": "request", "authorization": "[removed]", "password": "[removed]"}',
    '{"timestamp": "2026-11-22T17:39:05.655356Z", "took": 0.0138001380}',
    "listening on 127.0.0.1:8000 (build 1.2.3, 20261122)",
)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"TONGBAO_DATA_DIR": str(tmp_path), "TONGBAO_LICENCE": "bank"}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_found_by_its_line(leak: str) -> None:
    lines = [*FINE, LEAKS[leak], *FINE]

    assert {each.line for each in scan_log(lines)} == {len(FINE) + 1}


def test_what_our_own_logging_writes_of_a_leak_is_fine() -> None:
    stream = io.StringIO()
    before = structlog.get_config()
    set_up_logging("info", "json", stream)
    try:
        for leak in ("card", "secret", "resident"):
            structlog.get_logger().info("seen", what=LEAKS[leak], id=show("pay", new_id()))
    finally:
        structlog.configure(**before)

    lines = stream.getvalue().splitlines()
    assert len(lines) == len([json.loads(line) for line in lines]) == 3
    assert list(scan_log(lines)) == []


@given(st.lists(st.text(max_size=60), max_size=5))
def test_any_text_can_be_looked_through(lines: list[str]) -> None:
    assert all(1 <= each.line <= len(lines) for each in scan_log(lines))


async def test_the_command_says_where_and_never_what(cli: Cli, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.log", tmp_path / "bad.log"
    good.write_text("\n".join(FINE))
    bad.write_text("\n".join([*FINE, LEAKS["card"]]))

    clean = await cli("--json", "invariants", "--log", str(good))
    found = await cli("--json", "invariants", "--log", str(good), "--log", str(bad))

    assert (clean.code, clean.json) == (0, [])
    assert found.code == 1
    assert [(each["log"], each["line"]) for each in found.json] == [(str(bad), 5)]
    assert CARD not in found.out + found.err
