"""A merchant's callback address: keeps what arrives and answers as told."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Self


class Letter(NamedTuple):
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes


class Inbox:
    def __init__(self) -> None:
        self.letters: list[Letter] = []
        self.answers: list[tuple[int, bytes]] = []  # used up one by one, then 204 for ever
        self.otherwise: tuple[int, bytes] = (204, b"")
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                inbox.letters.append(Letter(self.path, headers, body))
                status, reply = inbox.answers.pop(0) if inbox.answers else inbox.otherwise
                self.send_response(status)
                if status != 204:
                    self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/notify"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
