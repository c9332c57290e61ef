"""Starts the sandbox: ``python -m tongbao_sandbox --data-dir DIR --port 0``.

Prints one line of JSON when it is ready: where it listens and where the credentials lie.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

import msgspec
import uvicorn

from tongbao_sandbox.app import App, Wire
from tongbao_sandbox.channels import CHANNELS
from tongbao_sandbox.clock import VirtualClock
from tongbao_sandbox.control import Control
from tongbao_sandbox.credentials import SHOWN, load_or_create
from tongbao_sandbox.delivery import PostOffice
from tongbao_sandbox.faults import Faults
from tongbao_sandbox.panel.server import Panel
from tongbao_sandbox.seam import Listening, World
from tongbao_sandbox.state import State

_WATCH_S: Final = 0.5


def main() -> None:
    """Read the command line and serve until told to stop."""
    parser = argparse.ArgumentParser(prog="tongbao_sandbox", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="where it keeps its memory")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--parent-pid", type=int, help="stop when this process is gone")
    args = parser.parse_args()
    args.data_dir.mkdir(parents=True, exist_ok=True)
    asyncio.run(serve(args.data_dir, args.port, args.parent_pid))


async def serve(data_dir: Path, port: int, parent_pid: int | None) -> None:
    """Serve on loopback until a signal comes or the parent is gone."""
    keys = load_or_create(data_dir, {name: maker for name, (maker, _) in CHANNELS.items()})
    state = State(data_dir / "sandbox.sqlite3")
    clock, faults = VirtualClock(state), Faults(state)
    post_office = PostOffice(state, clock, faults)
    world = World(state=state, clock=clock, faults=faults, courier=post_office, keys=keys)
    channels = {name: make(world) for name, (_, make) in CHANNELS.items()}
    post_office.use(channels)
    control = Control(world, channels, post_office)
    app = App(world, channels, control, Panel(world, channels, control, post_office))

    # uvicorn raises the signal that stopped it once more at its end; by then it has been obeyed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_caught: None)
    listener = _listen(port)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=Wire,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=75,
        )
    )
    delivering = asyncio.create_task(post_office.run())
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    watching = asyncio.create_task(_watch(parent_pid, server))
    while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event
        await asyncio.sleep(0.005)
    listening = {name: one for name, one in channels.items() if isinstance(one, Listening)}
    ready = {
        "url": f"http://127.0.0.1:{listener.getsockname()[1]}",
        "credentials": str((data_dir / SHOWN).resolve()),
        "hosts": {name: await one.listen() for name, one in listening.items()},
    }
    sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
    sys.stdout.flush()
    try:
        await serving
    finally:
        for one in listening.values():
            await one.hang_up()
        watching.cancel()
        delivering.cancel()
        await asyncio.gather(watching, delivering, return_exceptions=True)
        state.close()


def _listen(port: int) -> socket.socket:
    # asyncio turns Nagle's delay off only where the protocol is named; a second request on a
    # connection would wait 40 ms for its answer.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(512)
    return listener


async def _watch(parent_pid: int | None, server: uvicorn.Server) -> None:
    """Stop the server when the parent is gone, so that a killed test leaves nothing behind."""
    if parent_pid is None:
        return
    is_child = os.getppid() == parent_pid
    while True:
        await asyncio.sleep(_WATCH_S)
        if (is_child and os.getppid() != parent_pid) or not _alive(parent_pid):
            server.should_exit = True
            return


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    main()
