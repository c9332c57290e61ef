"""A process that has imported the sandbox and forks one for every order: see `tests.sandboxes`.

An order is a message with the arguments of one sandbox, and the pipe that it says it is ready on;
the answer is its process id. The nursery ends with whoever gives orders, and so does each sandbox.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from typing import NoReturn

import anyio
import msgspec

from tongbao_sandbox.__main__ import main
from tongbao_sandbox.delivery import trusted

_MESSAGE_MAX = 65_536


def nurse(place: socket.socket) -> None:
    """Fork a sandbox for every order, until nobody gives orders any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for them
    trusted()
    anyio.run(anyio.sleep, 0)  # imports what it runs on
    gc.freeze()  # what all children share need not be looked through by each
    while True:
        order, descriptors, _, _ = socket.recv_fds(place, _MESSAGE_MAX, 1)
        if not order:
            return
        pid = os.fork()
        if pid == 0:
            place.close()
            _become(msgspec.json.decode(order, type=list[str]), descriptors[0])
        os.close(descriptors[0])
        place.send(str(pid).encode())


def _become(arguments: list[str], says: int) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(says, 1)
    os.close(says)
    sys.argv[1:] = arguments
    main()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    nurse(socket.socket(fileno=os.dup(0)))
