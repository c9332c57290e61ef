"""`tongbao serve`: run the roles of one process until told to stop."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import click
import structlog
import uvicorn

from tongbao.infra.http_edge import protocol_with
from tongbao.infra.settings import Settings
from tongbao.kernel.errors import Conflict
from tongbao.surfaces.cli.context import Context, Platform, refusals_told

ROLES: Final = ("api", "worker", "poster")
_BACKLOG: Final = 2048
_GRACE_S: Final = 10
_COLLECT_EVERY: Final = 100_000  # more than a few hundred requests under way have at a time
_log = structlog.get_logger()


class AddressNotFree(Conflict):
    """The server cannot listen at its address: another program does, or it is not ours."""

    code = "serve.address_not_free"
    advice = "Stop the program that listens there, or set TONGBAO_HOST and TONGBAO_PORT."
    advice_zh = "请停止占用该地址的程序，或修改 TONGBAO_HOST 与 TONGBAO_PORT。"


@click.command()
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(ROLES),
    help="Run only this role; may be given more than once. Default: all.",
)
@click.option(
    "--shared-port",
    is_flag=True,
    help="Share the port with other servers started so: one for each processor.",
)
@click.pass_obj
def serve(context: Context, roles: Sequence[str], *, shared_port: bool) -> None:
    """Serve the API and consoles, run tasks and keep the books, until SIGTERM or Ctrl-C."""
    settings = context.settings()
    wanted = roles or ROLES
    if "api" not in wanted:
        context.run(lambda platform: serve_roles(platform, wanted), settings)
        return
    # Before anything is migrated or started, so that a second server harms nothing.
    with refusals_told():
        listening = listen(settings, is_shared=shared_port)
    with listening:
        context.run(lambda platform: serve_roles(platform, wanted, listening), settings)


def listen(settings: Settings, *, is_shared: bool = False) -> socket.socket:
    """Return a socket bound to the address of the settings.

    The system shares connections out among servers that have bound a shared port.

    Raises:
        AddressNotFree
    """
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        # The protocol must be named, or the event loop leaves Nagle's delay on.
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if is_shared:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
        except OSError:
            listening.close()
            raise
    except OSError as failure:
        reason = os.strerror(failure.errno) if failure.errno else str(failure)
        raise AddressNotFree(host=settings.host, port=settings.port, reason=reason) from None
    return listening


async def serve_roles(
    platform: Platform, roles: Sequence[str], listening: socket.socket | None = None
) -> None:
    """Run the roles until SIGTERM or SIGINT, then let what is running end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await platform.seed()
    # What is there now stays: the collector need not look at it again, nor so often at what passes.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY, 20, 20)
    if "poster" in roles:
        await platform.ledger.listen()
    else:
        platform.ledger.leave_books()
    async with asyncio.TaskGroup() as group:
        if "poster" in roles:
            group.create_task(platform.ledger.keep_books(stop))
        group.create_task(platform.follow_clock(stop))
        if listening is not None:
            group.create_task(serve_http(platform, listening, stop))
        if "worker" in roles:
            group.create_task(platform.worker.run(stop))
        port = listening.getsockname()[1] if listening is not None else None
        _log.info("started", roles=list(roles), url=platform.settings.public_url, port=port)
    _log.info("stopped")


async def serve_http(platform: Platform, listening: socket.socket, stop: asyncio.Event) -> None:
    """Serve the HTTP application until ``stop`` is set."""
    app = platform.app()
    config = uvicorn.Config(
        app,
        http=protocol_with(app.door),
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config)
    stopping = asyncio.create_task(stop.wait())
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
    platform.end_streams()  # or the server would wait for them, as long as it may
    server.should_exit = True
    stopping.cancel()
    with suppress(asyncio.CancelledError):
        await stopping
    await serving
    stop.set()  # a server that ended by itself takes the whole process down with it


class _Server(uvicorn.Server):
    """Uvicorn without signal handlers of its own: the process has one place for them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve_roles`."""
        yield
