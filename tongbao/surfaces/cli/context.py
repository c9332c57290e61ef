"""What every command is given: settings, and a way to open the platform they describe."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click
import msgspec
from msgspec import Struct

from tongbao.clearing.context import Clearing
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.settings import Settings, load_settings
from tongbao.infra.worker import Worker
from tongbao.kernel.errors import Refusal
from tongbao.ledger.book import Ledger
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

    def app(self) -> Any:
        """Return the HTTP application."""

    async def seed(self) -> None:
        """Enqueue what must always be enqueued."""

    async def follow_clock(self, stop: asyncio.Event) -> None:
        """Keep business time up with the deployment's."""


Open = Callable[[Settings], AbstractAsyncContextManager[Any]]


class Context(Struct):
    """The object of every click command."""

    open_platform: Open
    config: Path | None = None
    as_json: bool = False

    def settings(self, **overrides: str) -> Settings:
        """Return the settings of the environment and the file, with some overridden.

        Raises:
            SettingUnknown, SettingInvalid, SettingsFileUnreadable
        """
        return load_settings({**os.environ, **overrides}, self.config)

    def run(self, work: Callable[[Platform], Awaitable[T]], settings: Settings | None = None) -> T:
        """Open the platform, do the work, close it; a refusal ends the program with its advice."""

        async def whole() -> T:
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
    """Run a coroutine to its end; a refusal becomes one line on stderr and exit code 1."""
    try:
        return asyncio.run(work)
    except Refusal as refusal:
        facts = "".join(f" {name}={value}" for name, value in refusal.facts.items())
        message = f"{refusal.code}:{facts} {refusal.advice} / {refusal.advice_zh}"
        raise click.ClickException(message) from None
