"""What the first pages tell a newcomer to type exists."""

from __future__ import annotations

import importlib
import importlib.util
import re

import click
import pytest

from tools.house import ROOT

PAGES = ("README.md", "CONTRIBUTING.md")


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_it_names_exists(page: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))

    assert set(re.findall(r"\bmake ([a-z]+)", console_of(page))) <= targets


def test_both_commands_of_the_readme_are_the_first_thing_to_type() -> None:
    first = console_of("README.md").splitlines()[:2]

    assert [line.split("#")[0].strip() for line in first] == ["make demo", "make test"]


def test_every_command_of_the_readme_exists() -> None:
    if importlib.util.find_spec("tongbao.__main__") is None:
        pytest.skip("the command line is not built yet")
    group: click.Command = importlib.import_module("tongbao.__main__").main
    typed = re.compile(r"^\.venv/bin/tongbao ([a-z ]+?) *(?:#|$)", re.MULTILINE)
    named = typed.findall(console_of("README.md"))

    assert named
    for words in named:
        command = group
        for word in words.split():
            assert isinstance(command, click.Group), f"tongbao {words}"
            assert word in command.commands, f"tongbao {words}"
            command = command.commands[word]


def test_every_room_is_on_the_map() -> None:
    """The table of the README has each folder that stands in the package."""
    text = (ROOT / "README.md").read_text("utf-8")
    rooms = {path.parent.name for path in ROOT.glob("tongbao/*/__init__.py")}

    assert not [room for room in rooms if f"[`tongbao/{room}`](tongbao/{room})" not in text]


def test_the_readme_speaks_both_languages() -> None:
    assert len(re.findall("[\u4e00-\u9fff]", (ROOT / "README.md").read_text("utf-8"))) > 100


def console_of(page: str) -> str:
    """Return what the page's console blocks hold, and its inline ``make …``."""
    text = (ROOT / page).read_text("utf-8")
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`(make [^`\n]+)`", text)
    return "".join(blocks) + "\n".join(inline)
