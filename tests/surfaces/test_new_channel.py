"""`tongbao new-channel`: what it writes works at once, claims nothing, and overwrites nothing."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from tongbao.__main__ import main
from tongbao.infra.http import HttpClient
from tongbao.rails.channels.contract.bills import BillFault

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """As much of a repository as the command looks for."""
    (tmp_path / "tongbao/rails/channels/contract").mkdir(parents=True)
    (tmp_path / "tongbao/rails/channels/contract/channel.py").touch()
    return tmp_path


def new_channel(tree: Path, name: str, *more: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, [*more, "new-channel", name, "--into", str(tree)])
    return done.exit_code, done.output


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_what_is_written_is_a_channel_that_claims_nothing(tree: Path) -> None:
    code, said = new_channel(tree, "north_bank")
    assert code == 0, said
    assert "test_connectors.py -k north_bank" in said
    folder = tree / "tongbao/rails/channels/north_bank"
    assert {path.name for path in folder.iterdir()} == {
        *("__init__.py", "client.py", "secrets.py", "errors.toml")
    }
    assert json.loads((tree / "tests/rails/recorded/north_bank.json").read_text()) == []
    [entry] = tomllib.loads((folder / "errors.toml").read_text("utf-8"))["entry"]
    assert entry["meaning"] == "unknown"
    http = HttpClient()
    channel = loaded(folder / "client.py").NorthBank(http)
    assert channel.name == "north_bank"
    assert [type(line) for line in channel.parse_bill(folder)] == [BillFault]
    await http.close()
    secrets = loaded(folder / "secrets.py").NorthBankSecrets("very secret")
    assert "very secret" not in repr(secrets)
    registration = (tree / "tests/rails/connectors/north_bank.py").read_text()
    assert "from tongbao.rails.channels.north_bank.client import NorthBank\n" in registration


def test_the_steps_send_to_where_channels_are_wired(tree: Path) -> None:
    _, said = new_channel(tree, "north_bank")
    [named] = re.findall(
        r"in (tongbao/\w+\.py): the class in `(\w+)`, NorthBankSecrets in (\w+)", said
    )
    path, *tables = named
    module = ast.parse((REPOSITORY / path).read_text())
    defined = {
        node.name if isinstance(node, ast.FunctionDef) else getattr(node, "target", node).id
        for node in module.body
        if isinstance(node, ast.FunctionDef | ast.AnnAssign)
    }
    assert set(tables) <= defined


def test_what_is_written_passes_ruff(tree: Path) -> None:
    new_channel(tree, "north_bank")
    written = tree / "tongbao/rails/channels/north_bank"
    settings = REPOSITORY / "pyproject.toml"
    for check in (["check", "--ignore", "INP001"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, "--config", settings, written],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "name",
    [
        *("North", "north-bank", "../north", "north__bank", "_north", "9north", "", "x" * 25),
        *("utils", "bank_helpers", "north bank", "银行"),
    ],
)
def test_a_bad_name_is_refused_and_nothing_written(tree: Path, name: str) -> None:
    before = sorted(tree.rglob("*"))
    code, said = new_channel(tree, name)
    assert code == 1
    assert "new_channel.name_refused" in said
    assert sorted(tree.rglob("*")) == before


@pytest.mark.parametrize(
    "taken", ["tongbao/rails/channels/north", "tests/rails/connectors/north.py"]
)
def test_what_exists_is_not_written_over(tree: Path, taken: str) -> None:
    path = tree / taken
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine") if path.suffix else path.mkdir()
    before = sorted(tree.rglob("*"))
    code, said = new_channel(tree, "north")
    assert code == 1
    assert "new_channel.exists" in said
    assert sorted(tree.rglob("*")) == before


def test_a_folder_without_source_is_refused(tmp_path: Path) -> None:
    code, said = new_channel(tmp_path, "north")
    assert code == 1
    assert "new_channel.no_source_tree" in said


def test_machines_get_the_files(tree: Path) -> None:
    code, said = new_channel(tree, "north", "--json")
    assert code == 0
    assert len(json.loads(said)["files"]) == 6
