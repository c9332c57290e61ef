"""`tongbao terminals`: take serial numbers in, give terminals out, and tell them what to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.parties.terminals import inventory, parameters
from tongbao.parties.terminals.inventory import TerminalFilter
from tongbao.parties.terminals.model import PREFIX, Parameters, Terminal, TerminalState
from tongbao.surfaces.cli.context import Context, Platform, Text, actor

_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)
_WHY: Final = click.option(
    "--because", required=True, type=Text(200), help="Why, for those who read it later."
)
_WORDS: Final = {"true": True, "false": False}


class ParameterUnknown(Invalid):
    """A parameter that terminals do not have, or a value it cannot have."""

    code = "terminal.parameter_unknown"
    advice = "Use volume, brightness, language, speaks, prints, heartbeat_s and idle_text."
    advice_zh = "可用参数：volume、brightness、language、speaks、prints、heartbeat_s、idle_text。"


@click.group()
def terminals() -> None:
    """Terminals: the machines on merchants' counters."""


@terminals.command("import")
@click.argument("file", type=_FILE)
@click.option("--name", required=True, type=Text(64), help="What the batch is called.")
@click.option("--model", required=True, type=Text(64), help="The machines' model.")
@click.pass_obj
def terminals_import(context: Context, file: Path, name: str, model: str) -> None:
    """Take a CSV of serial numbers into the stock: all of it, and once."""
    content = file.read_bytes()

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            made = await inventory.import_serials(tx, content, name=name, model=model)
        return {"batch": show("tbt", made.batch_id), "terminals": made.terminals}

    context.show(context.run(work))


@terminals.command("list")
@click.option("--merchant", help="Of this merchant only.")
@click.option(
    "--state", type=click.Choice([each.value for each in TerminalState]), help="In this state."
)
@click.option("--offline", is_flag=True, help="Those that have said nothing for three minutes.")
@click.option("--limit", default=20, show_default=True, help="How many of the newest.")
@click.pass_obj
def terminals_list(
    context: Context, *, merchant: str | None, state: str | None, offline: bool, limit: int
) -> None:
    """List terminals, newest first."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        wanted = TerminalFilter(
            merchant_id=parse("mch", merchant) if merchant else None,
            state=TerminalState(state) if state else None,
            only_offline=offline,
        )
        now = platform.db.clock.now()
        page = await inventory.list_terminals(platform.db, wanted, now=now, limit=limit)
        return [_facts(each) for each in page.items]

    context.show(context.run(work))


@terminals.command("assign")
@click.argument("serial")
@click.argument("merchant")
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default="sandbox",
    show_default=True,
    help="Real money or test.",
)
@click.pass_obj
def terminals_assign(context: Context, serial: str, merchant: str, mode: str) -> None:
    """Give a terminal of the stock to a merchant, who puts it in its place."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            found = await inventory.terminal_with_serial(tx, serial)
            owner = await merchant_with_id(tx, parse("mch", merchant))
            return _facts(await inventory.assign_terminal(tx, found.id, owner, Mode(mode)))

    context.show(context.run(work))


@terminals.command("move")
@click.argument("serial")
@click.argument("state", type=click.Choice([each.value for each in TerminalState]))
@_WHY
@click.pass_obj
def terminals_move(context: Context, serial: str, state: str, because: str) -> None:
    """Suspend a terminal, resume it (bound), take it back (stock), retire it or call it stolen."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            found = await inventory.terminal_with_serial(tx, serial)
            to = TerminalState(state)
            return _facts(await inventory.move_terminal(tx, found.id, to, because=because))

    context.show(context.run(work))


@terminals.command("template")
@click.argument("name", type=Text(64))
@click.option("--set", "said", multiple=True, metavar="NAME=VALUE", help="A parameter; repeatable.")
@_WHY
@click.pass_obj
def terminals_template(context: Context, name: str, said: Sequence[str], because: str) -> None:
    """Make or change a template of parameters, and tell every terminal that follows it."""

    async def work(platform: Platform) -> dict[str, object]:
        wanted = read_parameters(said)
        async with platform.db.begin(actor()) as tx:
            made = await parameters.set_template(tx, name, wanted, why=because)
        return {"template": made.name, "version": made.version, **made.parameters}

    context.show(context.run(work))


@terminals.command("follow")
@click.argument("serial")
@click.argument("template", required=False)
@_WHY
@click.pass_obj
def terminals_follow(context: Context, serial: str, template: str | None, because: str) -> None:
    """Have a terminal follow a template; without one it follows none."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            found = await inventory.terminal_with_serial(tx, serial)
            told = await parameters.follow_template(tx, found.id, template, why=because)
        return {**_facts(told), "parameters_version": told.parameters_version}

    context.show(context.run(work))


COMMANDS: Final = (terminals,)


def read_parameters(said: Sequence[str]) -> Parameters:
    """Return parameters that were typed as name=value.

    Raises:
        ParameterUnknown
    """
    given: dict[str, Any] = {}
    for each in said:
        name, _, value = each.partition("=")
        number = int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else value
        given[name] = _WORDS.get(value, number) if name != "idle_text" else value
    try:
        return msgspec.convert(given, Parameters)
    except msgspec.ValidationError as failure:
        raise ParameterUnknown(reason=str(failure)[:80]) from None


def _facts(terminal: Terminal) -> dict[str, object]:
    return {
        "terminal": show(PREFIX, terminal.id),
        "serial": terminal.serial_number,
        "model": terminal.model,
        "state": terminal.state.value,
        "merchant": show("mch", terminal.merchant_id) if terminal.merchant_id else "",
        "name": terminal.name,
    }
