"""Terminals: a merchant looks after them, and the program that runs on one.

`Terminals` is the merchant's side, with an API key. `Terminal` is the machine's own: it gets a key
against a code, says that it is there, and hears what to say and to print.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, Literal, TypedDict, cast

import httpx2 as httpx

from tongbao_sdk.errors import Refused
from tongbao_sdk.replies import (
    ActivationCode,
    TerminalDetails,
    TerminalLimits,
    TerminalParameters,
)
from tongbao_sdk.signing import authorization
from tongbao_sdk.transport import Transport, path_of

TerminalStatus = Literal["stock", "bound", "suspended", "retired", "stolen"]
_TILLS: Final = "/terminals/v1/staff"
SILENCE_S: Final = 45.0
"""The platform says something at least every 15 seconds; after three silences it is gone."""


class Parameters(TypedDict, total=False):
    """What a terminal may be told to do; volume and brightness are 0 to 10."""

    volume: int
    brightness: int
    language: Literal["zh", "en"]
    speaks: bool
    prints: bool
    heartbeat_s: int
    idle_text: str


class Terminals:
    """Look after the machines on the counters."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        status: TerminalStatus | None = None,
        serial: str | None = None,
        limit: int = 100,
    ) -> Iterator[TerminalDetails]:
        """Yield the merchant's terminals, fetching ``limit`` at a time."""
        return self._transport.pages(
            path_of("terminals"), status=status, serial=serial, limit=limit
        )

    def get(self, terminal_id: str) -> TerminalDetails:
        """Return one terminal."""
        return cast("TerminalDetails", self._transport.get(path_of("terminals", terminal_id)))

    def activation_code(self, terminal_id: str) -> ActivationCode:
        """Make the code with which the terminal gets its key; good once, for a day.

        Raises:
            Refused, Unanswered
        """
        return cast("ActivationCode", self._post(terminal_id, "activation_codes"))

    def place(
        self,
        terminal_id: str,
        *,
        name: str = "",
        plate_id: str | None = None,
        store_id: str | None = None,
    ) -> TerminalDetails:
        """Say where a terminal stands; one beside a plate tells what is paid there.

        Raises:
            Refused, Unanswered
        """
        body = {"name": name, "plate_id": plate_id, "store_id": store_id}
        return cast("TerminalDetails", self._post(terminal_id, "place", **body))

    def suspend(self, terminal_id: str, *, reason: str) -> TerminalDetails:
        """Let it take and tell nothing for a while."""
        return cast("TerminalDetails", self._post(terminal_id, "suspend", reason=reason))

    def resume(self, terminal_id: str, *, reason: str) -> TerminalDetails:
        """Let it work again."""
        return cast("TerminalDetails", self._post(terminal_id, "resume", reason=reason))

    def report_stolen(self, terminal_id: str, *, reason: str) -> None:
        """End its key at once; it is not the merchant's any more."""
        self._post(terminal_id, "report_stolen", reason=reason)

    def limits(self, terminal_id: str) -> TerminalLimits:
        """Return its limits and what counts against them today."""
        return cast(
            "TerminalLimits", self._transport.get(path_of("terminals", terminal_id, "limits"))
        )

    def set_limits(
        self,
        terminal_id: str,
        *,
        each: int | None = None,
        count: int | None = None,
        amount: int | None = None,
        currency: str = "CNY",
    ) -> TerminalLimits:
        """Set what it may take, in minor units; what is left out is unlimited."""
        body = {"currency": currency, "each": each, "count": count, "amount": amount}
        return cast("TerminalLimits", self._post(terminal_id, "limits", **body))

    def parameters(self, terminal_id: str) -> Iterator[TerminalParameters]:
        """Yield the versions of what it is to do, latest first."""
        return self._transport.pages(path_of("terminals", terminal_id, "parameters"))

    def set_parameters(
        self, terminal_id: str, parameters: Parameters, *, reason: str
    ) -> TerminalDetails:
        """Tell it what to do otherwise than its template says."""
        body = {"parameters": parameters, "reason": reason}
        return cast("TerminalDetails", self._post(terminal_id, "parameters", **body))

    def roll_back_parameters(self, terminal_id: str, *, version: int) -> TerminalDetails:
        """Give it back what an old version said, as a new version."""
        path = path_of("terminals", terminal_id, "parameters", "roll_back")
        return cast("TerminalDetails", self._transport.post(path, {"version": version}))

    def _post(self, terminal_id: str, act: str, **body: object) -> Any:
        return self._transport.post(path_of("terminals", terminal_id, act), body or None)


class Terminal:
    """The program on a terminal. Keep ``key_id``, ``secret`` and ``heard`` where they survive.

    ``heard`` is the number of the last notice that was said and printed: with it nothing is told
    twice, and nothing is lost, whoever dies in between.
    """

    def __init__(
        self,
        url: str,
        *,
        key_id: str,
        secret: str,
        heard: int | None = None,
        client: httpx.Client | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self.key_id = key_id
        self.secret = secret
        self.heard = heard
        self._client = client or httpx.Client(trust_env=False)

    def __repr__(self) -> str:
        return f"Terminal({self._url!r}, {self.key_id!r})"

    @classmethod
    def activate(
        cls, url: str, *, serial: str, code: str, client: httpx.Client | None = None
    ) -> Terminal:
        """Get a key against a code; where the answer is lost, ask for another code.

        Raises:
            Refused
        """
        web = client or httpx.Client(trust_env=False)
        body = {"serial": serial, "code": code}
        reply = _checked(web.post(f"{url.rstrip('/')}/terminals/v1/activate", json=body))
        return cls(url, key_id=reply["key_id"], secret=reply["secret"], client=web)

    def beat(self, **said: object) -> dict[str, Any]:
        """Say that it is there, with ``firmware``, ``battery``, ``signal``, ``parameters_version``.

        Raises:
            Refused
        """
        body = json.dumps({"heard": self.heard or 0, **said}).encode()
        request = self._signed("POST", "/terminals/v1/heartbeat", body)
        return cast("dict[str, Any]", _checked(self._client.send(request)))

    def parameters(self) -> dict[str, Any]:
        """Return what it is to do, with the version's number.

        Raises:
            Refused
        """
        request = self._signed("GET", "/terminals/v1/parameters", b"")
        return cast("dict[str, Any]", _checked(self._client.send(request)))

    def notices(self) -> Iterator[dict[str, Any]]:
        """Yield what to say and print, as it comes, until the connection ends; then call again.

        Each is counted as heard once the next is asked for: say and print it before that.

        Raises:
            Refused
        """
        request = self._signed("GET", "/terminals/v1/notices", b"")
        if self.heard is not None:
            request.headers["Last-Event-ID"] = str(self.heard)
        reply = self._client.send(request, stream=True)
        try:
            if not reply.is_success:
                reply.read()
                _checked(reply)
            for number, content in _events(reply.iter_lines()):
                yield content
                self.heard = number
        finally:
            reply.close()

    def people(self) -> list[dict[str, Any]]:
        """Return who may sign in here: ``staff_id``, ``name``, ``role``.

        Raises:
            Refused
        """
        return cast("list[dict[str, Any]]", self.call("GET", _TILLS)["items"])

    def choose_pin(self, staff_id: str, *, code: str, pin: str) -> None:
        """Put a person's new PIN in force, with the code that their merchant gave them.

        Raises:
            Refused
        """
        self.call("POST", f"{_TILLS}/pins", {"staff_id": staff_id, "code": code, "pin": pin})

    def sign_in(self, staff_id: str, pin: str) -> Till:
        """Sign a person in; whoever was signed in here is out.

        Raises:
            Refused
        """
        opened = self.call("POST", f"{_TILLS}/sessions", {"staff_id": staff_id, "pin": pin})
        return Till(self, opened)

    def call(
        self, method: str, target: str, body: object = None, *, idempotency_key: str | None = None
    ) -> Any:
        """Send a signed request and return what is answered.

        Raises:
            Refused
        """
        content = b"" if body is None else json.dumps(body).encode()
        request = self._signed(method, target, content)
        if content:
            request.headers["Content-Type"] = "application/json"
        if idempotency_key is not None:
            request.headers["Idempotency-Key"] = idempotency_key
        return _checked(self._client.send(request))

    def _signed(self, method: str, target: str, body: bytes) -> httpx.Request:
        request = self._client.build_request(
            method, self._url + target, content=body, timeout=SILENCE_S
        )
        request.headers["Authorization"] = authorization(
            self.key_id,
            self.secret,
            method=method,
            target=request.url.raw_path.decode("ascii"),
            body=body,
        )
        return request


class Till:
    """A person who has signed in at a terminal; ``may`` is what their role includes there.

    Requests are the API's own, at their own paths. A repeat with the same key happens once.
    """

    def __init__(self, terminal: Terminal, opened: dict[str, Any]) -> None:
        self._terminal = terminal
        self._path = f"{_TILLS}/sessions/{opened['id']}"
        self.staff_id: str = opened["staff_id"]
        self.may: list[str] = opened["may"]
        self.ends_at: str = opened["ends_at"]

    def __repr__(self) -> str:
        return f"Till({self.staff_id!r})"

    def get(self, path: str) -> Any:
        """Read something: ``till.get("/v1/payments/pay_…")``.

        Raises:
            Refused
        """
        return self._terminal.call("GET", self._path + path)

    def post(self, path: str, body: object = None, *, idempotency_key: str) -> Any:
        """Do something: ``till.post("/v1/payments", {…}, idempotency_key="…")``.

        Raises:
            Refused
        """
        return self._terminal.call("POST", self._path + path, body, idempotency_key=idempotency_key)

    def sign_out(self) -> None:
        """Let nobody go on from here; safe to repeat.

        Raises:
            Refused
        """
        self._terminal.call("POST", f"{self._path}/sign_out")


def _events(lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each whole event's number and content; one that is cut off is none."""
    number, content = 0, ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "id":
            number = int(value)
        elif name == "data":
            content = value
        elif not line and content:
            yield number, json.loads(content)
            content = ""


def _checked(reply: httpx.Response) -> Any:
    """Return what was answered.

    Raises:
        Refused
    """
    if reply.is_success:
        return reply.json()
    try:
        problem = reply.json()
    except ValueError:
        problem = {}
    raise Refused(reply.status_code, problem if isinstance(problem, dict) else {})
