"""`tongbao serve`: run the roles of one process until told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import click
import structlog
import uvicorn

from tongbao.infra.http_edge import BoundedHttpProtocol
from tongbao.surfaces.cli.context import Context, Platform

ROLES: Final = ("api", "worker")
_GRACE_S: Final = 10
_log = structlog.get_logger()


@click.command()
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(ROLES),
    help="Run only this role; may be given more than once. Default: all.",
)
@click.pass_obj
def serve(context: Context, roles: Sequence[str]) -> None:
    """Serve the API and consoles, and run tasks, until SIGTERM or Ctrl-C."""
    context.run(lambda platform: serve_roles(platform, roles or ROLES))


async def serve_roles(platform: Platform, roles: Sequence[str]) -> None:
    """Run the roles until SIGTERM or SIGINT, then let what is running end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await platform.seed()
    async with asyncio.TaskGroup() as group:
        group.create_task(platform.follow_clock(stop))
        if "api" in roles:
            group.create_task(serve_http(platform, stop))
        if "worker" in roles:
            group.create_task(platform.worker.run(stop))
        _log.info("started", roles=list(roles), url=platform.settings.public_url)


async def serve_http(platform: Platform, stop: asyncio.Event) -> None:
    """Serve the HTTP application until ``stop`` is set."""
    config = uvicorn.Config(
        platform.app(),
        host=platform.settings.host,
        port=platform.settings.port,
        http=BoundedHttpProtocol,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config)
    stopping = asyncio.create_task(stop.wait())
    serving = asyncio.create_task(server.serve())
    await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    stopping.cancel()
    with suppress(asyncio.CancelledError):
        await stopping
    await serving
    stop.set()  # a server that could not start takes the whole process down with it


class _Server(uvicorn.Server):
    """Uvicorn without signal handlers of its own: the process has one place for them."""

    def install_signal_handlers(self) -> None:
        """Leave signals to `serve_roles`."""
