"""The import contracts hold, and the one we wrote ourselves notices what it must."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest
from importlinter.cli import lint_imports

from tools.contracts import PrivateModules, home_of
from tools.house import ROOT


@pytest.fixture
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The linter reads its settings from the working directory."""
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("in_root")
def test_every_contract_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = lint_imports(no_cache=True, no_logo=True)

    assert exit_code == os.EX_OK, capsys.readouterr().out


@pytest.mark.parametrize(
    ("module", "home"),
    [
        ("tongbao.payments._store", "tongbao.payments"),
        ("tongbao.rails.channels.alipay._wire.codes", "tongbao.rails.channels.alipay"),
        ("tongbao.payments.model", None),
        ("tongbao.__main__", None),
        ("_private", ""),
    ],
)
def test_the_underscore_names_the_home(module: str, home: str | None) -> None:
    assert home_of(module) == home


@pytest.mark.parametrize(
    ("importer", "kept"),
    [
        ("tongbao.payments.refunds", True),
        ("tongbao.payments", True),
        ("tongbao.payments.deeper.still", True),
        ("tongbao.clearing.settlement", False),
        ("tongbao.payments_too", False),
        ("tongbao", False),
    ],
)
def test_a_private_module_is_imported_from_its_own_folder_only(importer: str, kept: bool) -> None:
    graph = grimp.ImportGraph()
    graph.add_module("tongbao.payments._store")
    graph.add_module(importer)
    graph.add_import(importer=importer, imported="tongbao.payments._store")
    contract = PrivateModules(name="private", session_options={}, contract_options={})

    check = contract.check(graph, verbose=False)

    assert check.kept is kept


def test_every_breach_is_noticed(tmp_path: Path) -> None:
    """A copy of the house with one wrong import per contract; each contract must name its own."""
    breaches = {
        "layers": ("kernel/money.py", "tongbao.ledger.model"),
        "acyclic": ("infra/db.py", "tongbao.infra.audit"),
        "private": ("surfaces/__init__.py", "tongbao.infra._task_store"),
        "channels": ("rails/channels/north/__init__.py", "tongbao.rails.channels.south.client"),
        "products": ("products/north/__init__.py", "tongbao.products.south"),
        "platform": ("surfaces/__init__.py", "tongbao_sandbox.__main__"),
        "driver": ("infra/audit.py", "asyncpg"),
        "network": ("rails/channels/contract/channel.py", "httpx2"),
        "cryptography": ("rails/channels/contract/channel.py", "cryptography"),
    }
    copy_house(tmp_path)
    for room in (
        "rails/channels/north",
        "rails/channels/south",
        "products/north",
        "products/south",
    ):
        folder = tmp_path / "tongbao" / room
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder.parent / "__init__.py").touch()
    (tmp_path / "tongbao/rails/channels/south/client.py").touch()
    for room, module in breaches.values():
        with (tmp_path / "tongbao" / room).open("a") as file:
            file.write(f"\nimport {module}\n")
    with (tmp_path / "tongbao_sandbox" / "__init__.py").open("a") as file:
        file.write("\nimport tongbao.infra.db\n")

    verdict = lint(tmp_path)

    broken = {each for each in contracts() if f"{contracts()[each]} BROKEN" in verdict}
    assert broken == set(contracts()), verdict


def test_a_new_room_must_be_given_its_floor(tmp_path: Path) -> None:
    copy_house(tmp_path)
    (tmp_path / "tongbao" / "cellar.py").touch()

    verdict = lint(tmp_path)

    assert f"{contracts()['layers']} BROKEN" in verdict
    assert "cellar" in verdict


def copy_house(place: Path) -> None:
    caches = shutil.ignore_patterns("__pycache__")
    for package in ("tongbao", "tongbao_sandbox", "tools"):
        shutil.copytree(ROOT / package, place / package, ignore=caches)
    shutil.copy(ROOT / "pyproject.toml", place)


def lint(place: Path) -> str:
    """Return what the linter says about the tree at ``place``, on one line."""
    code = "from importlinter.cli import lint_imports; lint_imports(no_cache=True, no_logo=True)"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, '.'); {code}"],
        cwd=place,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "500"},
    )
    return " ".join(run.stdout.split())


def contracts() -> dict[str, str]:
    """Return the name of every contract by its id."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {each["id"]: each["name"] for each in settings["tool"]["importlinter"]["contracts"]}
