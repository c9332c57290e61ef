"""A channel that `tongbao new-channel` has just written keeps the whole suite of connectors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec import structs

import tests.rails.connectors
import tongbao.rails.channels
from tests.rails import connector
from tests.rails import test_connectors as suite
from tests.rails.connector import Connector, connectors
from tests.rails.peers import PEERS
from tests.rails.wire_server import WireServer
from tongbao.__main__ import main
from tongbao.infra.http import HttpClient
from tongbao.rails.channels import error_map

NAME = "bank_of_this_test"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connector]:
    """What the command writes, found as if it stood in the repository."""
    channels = tmp_path / "tongbao/rails/channels"
    (channels / "contract").mkdir(parents=True)
    (channels / "contract/channel.py").touch()
    done = CliRunner().invoke(main, ["new-channel", NAME, "--into", str(tmp_path)])
    assert done.exit_code == 0, done.output
    registrations = tmp_path / "tests/rails/connectors"
    for package, folder in (
        (tongbao.rails.channels, channels),
        (tests.rails.connectors, registrations),
    ):
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    monkeypatch.setattr(suite, "RECORDED", tmp_path / "tests/rails/recorded")
    monkeypatch.setattr(error_map, "__file__", str(channels / "error_map.py"))
    error_map.error_map.cache_clear()
    yield connectors()[NAME]
    error_map.error_map.cache_clear()
    for name in [each for each in sys.modules if f".{NAME}" in each]:
        del sys.modules[name]


def test_whoever_plays_the_other_side_brings_the_rest_of_the_suite(
    written: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert NAME not in connector.every_peer()
    played = structs.replace(written, peer=PEERS["alipay"])
    monkeypatch.setattr(connector, "connectors", lambda: {NAME: played})
    assert connector.every_peer() == {**PEERS, NAME: PEERS["alipay"]}


async def test_what_is_written_keeps_the_suite_at_once(
    written: Connector, far_end: WireServer, http: HttpClient, tmp_path: Path
) -> None:
    folder = tmp_path / "bills"
    folder.mkdir()

    assert written.built == frozenset()
    suite.test_a_connector_is_registered_under_its_folder(written)
    for call in suite.CALLS:
        await suite.test_what_is_not_built_says_so_and_asks_nobody(
            written, call, far_end, http, folder
        )
        for trouble in ("reset", "a page", "http 500"):
            await suite.test_what_is_built_takes_rubbish_for_nothing(
                written, call, trouble, far_end, http, folder
            )
    for call in ("pay", "refund"):
        await suite.test_a_currency_it_does_not_take_is_not_sent(written, call, far_end, http)
    for body in (b"", b"{}", b"a=b&sign=x", b"\xff\x00"):
        suite.test_a_callback_nobody_signed_is_refused(written, body, http)
    suite.test_a_bill_of_somebody_else_is_a_fault(written, http, folder)
