"""Whatever is declared somewhere in the house is in one of the tables of the wiring."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.serving.device_api import DeviceApi
from tongbao.infra.settings import load_settings
from tongbao.kernel.licence import Licence
from tongbao.surfaces.open_bank.app import INTERFACES
from tongbao.surfaces.own_routes import ROUTES as OWN_ROUTES
from tongbao.surfaces.uk_open_banking.app import UK_INTERFACES
from tongbao.surfaces.wallet.assembly import ROUTES as WALLET_ROUTES
from tools import house, reference

duties = pytest.importorskip("tongbao.duties", reason="the rooms are not wired yet")
wiring = pytest.importorskip("tongbao.wiring", reason="the rooms are not wired yet")


class Nobody:
    """Stands in for whoever the tables bind; the tables are read, nothing is run."""

    def __getattr__(self, name: str) -> Nobody:
        return self


NOBODY: Any = Nobody()


def names(kinds) -> list[str]:
    return sorted(house.tag_of(kind) for kind in kinds)


def test_every_event_is_told() -> None:
    """One that is missing would wait in the outbox for ever."""
    assert names(duties.EVENTS) == names(house.events())
    assert names(duties.subscribers(NOBODY, NOBODY, NOBODY)) == names(house.events())


def test_every_task_has_somebody_who_does_it_and_a_policy_for_failure() -> None:
    everyone = duties.handlers(
        NOBODY, NOBODY, NOBODY, NOBODY, public_url="", gateways=NOBODY, keys=NOBODY
    )
    assert names(everyone) == names(house.tasks())
    assert names(duties.POLICIES) == names(house.tasks())


def test_every_route_is_served_to_somebody() -> None:
    served = {
        (path, method)
        for licence in Licence
        for handler in [
            *wiring.routes(licence, allows_test_clock=True),
            *(*WALLET_ROUTES, *OWN_ROUTES),
        ]
        for path in handler.paths
        for method in handler.http_methods
    }
    declared = {
        (path, method)
        for found in house.instances_of(reference.HTTPRouteHandler)
        for path in found.thing.paths
        for method in found.thing.http_methods
    }

    assert served == declared


def test_a_licence_only_ever_adds_routes() -> None:
    """What an aggregator may do, everybody may."""
    counts = [
        {
            path
            for handler in wiring.routes(licence, allows_test_clock=False)
            for path in handler.paths
        }
        for licence in (Licence.AGGREGATOR, Licence.PAYMENT_INSTITUTION)
    ]

    assert counts[0] < counts[1]


async def test_whatever_the_application_answers_is_documented(db: Db, tmp_path: Path) -> None:
    settings = load_settings(
        {"TONGBAO_DATA_DIR": str(tmp_path), "TONGBAO_LICENCE": "bank", "TONGBAO_TEST_CLOCK": "1"}
    )
    platform = wiring.Platform(settings, db, Keyring.from_file(settings.kek_file))
    app = platform.app()

    phones = app._mounts["/v1/me"]
    assert isinstance(phones, DeviceApi)
    operations = {
        (operation.method, operation.path)
        for operation in (*app.operations, *phones.operations, *INTERFACES, *UK_INTERFACES)
    }
    text = (reference.DOCS / "reference" / "routes.md").read_text("utf-8")
    documented = set(re.findall(r"^\| `([A-Z]+)` \| `([^`]+)`", text, re.MULTILINE))

    assert operations == documented
    assert set(app._mounts) == set(reference.BESIDE)
