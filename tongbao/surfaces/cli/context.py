"""What every command is given: settings, and a way to open the platform they describe."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click
import msgspec
import uvloop
from msgspec import Struct

from tongbao.clearing.context import Clearing
from tongbao.controls.approvals.model import Approvals
from tongbao.infra.audit import come_from
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.kms.opening import KeyDesk
from tongbao.infra.settings import Settings, load_settings
from tongbao.infra.worker import Worker
from tongbao.kernel.errors import Refusal
from tongbao.ledger.book import Ledger
from tongbao.parties.identity.model import Operator
from tongbao.parties.identity.sessions import log_in, log_out, session_of
from tongbao.payments.collecting.outcomes import Flow
from tongbao.rails.channels.accounts import SecretTypes

T = TypeVar("T")


class Platform(Protocol):
    """As much of the platform as commands use; wiring builds the whole."""

    settings: Settings
    db: Db
    keyring: Keyring
    ledger: Ledger
    flow: Flow
    worker: Worker
    secret_types: SecretTypes
    clearing: Clearing
    approvals: Approvals
    keys: KeyDesk

    def app(self) -> Any:
        """Return the HTTP application."""

    def end_streams(self) -> None:
        """Let go of those who are told things as they happen."""

    async def seed(self) -> None:
        """Enqueue what must always be enqueued."""

    async def follow_clock(self, stop: asyncio.Event) -> None:
        """Keep business time up with the deployment's."""


class Text(click.ParamType[str]):
    """A text that fits where it is kept; anything else is a mistake in typing."""

    name = "text"

    def __init__(self, length_max: int) -> None:
        self.length_max = length_max

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text."""
        if not 0 < len(value) <= self.length_max:
            self.fail(f"1 to {self.length_max} characters, please", param, ctx)
        return str(value)


Open = Callable[[Settings], AbstractAsyncContextManager[Any]]


class Context(Struct):
    """The object of every click command."""

    open_platform: Open
    config: Path | None = None
    as_json: bool = False

    def settings(self, **overrides: str) -> Settings:
        """Return the settings of the environment and the file, with some overridden."""
        with refusals_told():
            return load_settings({**os.environ, **overrides}, self.config)

    def run(self, work: Callable[[Platform], Awaitable[T]], settings: Settings | None = None) -> T:
        """Open the platform, do the work, close it; a refusal ends the program with its advice."""

        async def whole() -> T:
            come_from("command line")
            async with self.open_platform(settings or self.settings()) as platform:
                return await work(platform)

        return run(whole())

    def show(self, rows: Sequence[Mapping[str, object]] | Mapping[str, object]) -> None:
        """Print facts: JSON for machines, aligned lines for people."""
        if self.as_json:
            click.echo(msgspec.json.encode(rows).decode())
            return
        for row in [rows] if isinstance(rows, Mapping) else rows:
            click.echo("  ".join(f"{name}={value}" for name, value in row.items()))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on the fast event loop."""
    with refusals_told(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


@contextmanager
def refusals_told() -> Iterator[None]:
    """Turn a refusal into one line on stderr and exit code 1."""
    try:
        yield
    except Refusal as refusal:
        facts = "".join(f" {name}={value}" for name, value in refusal.facts.items())
        message = f"{refusal.code}:{facts} {refusal.advice} / {refusal.advice_zh}"
        raise click.ClickException(message) from None


@asynccontextmanager
async def acting_as(
    platform: Platform, *, login: str, password: str, code: str
) -> AsyncIterator[Operator]:
    """Give the operator whose password and second factor these are, until the block ends.

    A shell is not a second person; a login is.

    Raises:
        LoginRefused
    """
    opened = await log_in(
        platform.db, platform.keyring, login=login.strip().lower(), password=password, code=code
    )
    token = opened.token.reveal()
    try:
        yield (await session_of(platform.db, platform.keyring, token)).operator
    finally:
        await log_out(platform.db, platform.keyring, token)


def actor() -> str:
    """Return the name the audit log knows whoever types commands by."""
    return f"cli:{getpass.getuser()}"
