"""`tongbao operator`: who works at the console, added and helped by whoever runs the machine."""

from __future__ import annotations

from typing import Final

import click

from tongbao.parties.identity.model import Role
from tongbao.parties.identity.operators import (
    Enrolment,
    create_first_operator,
    create_operator,
    reset_second_factor,
    set_disabled,
    set_password,
    unlock,
)
from tongbao.parties.identity.queries import list_operators
from tongbao.surfaces.cli.context import Context, Platform, Text, actor

_LOGIN: Final = click.option("--login", prompt=True, help="The name to log in with.")
_NAME: Final = click.option("--name", prompt=True, type=Text(128), help="Who it is.")
_BECAUSE: Final = click.option(
    "--because", required=True, type=Text(200), help="Why; the audit log keeps it."
)
_PASSWORD: Final = click.option(
    "--password",
    prompt=True,
    hide_input=True,
    confirmation_prompt=True,
    help="Asked for when left out, which keeps it out of the shell's history.",
)


@click.group()
def operator() -> None:
    """People who work at the console."""


@operator.command("create-first")
@_LOGIN
@_NAME
@_PASSWORD
@click.pass_obj
def operator_create_first(context: Context, login: str, name: str, password: str) -> None:
    """Create the first operator, an administrator; the second factor is shown this once."""

    async def work(platform: Platform) -> Enrolment:
        async with platform.db.begin(actor()) as tx:
            return await create_first_operator(
                tx, platform.keyring, login=login, name=name, password=password
            )

    _show(context, context.run(work))


@operator.command("add")
@_LOGIN
@_NAME
@click.option(
    "--role",
    type=click.Choice([each.value for each in Role]),
    required=True,
    help="What they may do.",
)
@_PASSWORD
@click.pass_obj
def operator_add(context: Context, login: str, name: str, role: str, password: str) -> None:
    """Add somebody with a password to be changed; the second factor is shown this once."""

    async def work(platform: Platform) -> Enrolment:
        async with platform.db.begin(actor()) as tx:
            return await create_operator(
                tx, platform.keyring, login=login, name=name, role=Role(role), password=password
            )

    _show(context, context.run(work))


@operator.command("list")
@click.pass_obj
def operator_list(context: Context) -> None:
    """List everybody, and who is locked or disabled."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        return [
            {
                "login": each.login,
                "name": each.name,
                "role": each.role.value,
                "state": each.state,
                "locked_until": each.locked_until.isoformat() if each.locked_until else "",
            }
            for each in await list_operators(platform.db)
        ]

    context.show(context.run(work))


@operator.command("set-password")
@_LOGIN
@_PASSWORD
@_BECAUSE
@click.pass_obj
def operator_set_password(context: Context, login: str, password: str, because: str) -> None:
    """Give somebody a new password; every session of theirs ends."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            await set_password(tx, login, password, because=because)
        return {"login": login, "password": "set"}

    context.show(context.run(work))


@operator.command("reset-factor")
@click.argument("login")
@_BECAUSE
@click.pass_obj
def operator_reset_factor(context: Context, login: str, because: str) -> None:
    """Give somebody a new second factor for a lost one; every session of theirs ends."""

    async def work(platform: Platform) -> Enrolment:
        async with platform.db.begin(actor()) as tx:
            return await reset_second_factor(tx, platform.keyring, login, because=because)

    _show(context, context.run(work))


@operator.command("disable")
@click.argument("login")
@click.option("--undo", is_flag=True, help="Let them in again.")
@_BECAUSE
@click.pass_obj
def operator_disable(context: Context, login: str, because: str, *, undo: bool) -> None:
    """Lock somebody out for good, at once."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            await set_disabled(tx, login, disabled=not undo, because=because)
        return {"login": login, "state": "active" if undo else "disabled"}

    context.show(context.run(work))


@operator.command("unlock")
@click.argument("login")
@_BECAUSE
@click.pass_obj
def operator_unlock(context: Context, login: str, because: str) -> None:
    """Let somebody try again who failed too often."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            await unlock(tx, login, because=because)
        return {"login": login, "state": "unlocked"}

    context.show(context.run(work))


def _show(context: Context, enrolment: Enrolment) -> None:
    uri = enrolment.totp_uri.reveal()
    if context.as_json:
        context.show({"login": enrolment.operator.login, "totp_uri": uri})
        return
    click.echo("Add this to an authenticator app; it is not shown again:")
    click.echo(uri)
