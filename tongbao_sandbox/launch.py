"""Starts the sandbox as a subprocess and speaks to its control API; for tests and the demo."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

import httpx2
import msgspec


class Process(Protocol):
    """What is asked of a sandbox's process, however it was started."""

    @property
    def pid(self) -> int:
        """Its number."""
        ...

    def poll(self) -> int | None:
        """Return how it ended, None while it lives."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Return how it ended, when it has; or raise `subprocess.TimeoutExpired`."""
        ...

    def terminate(self) -> None:
        """Ask it to end."""
        ...

    def kill(self) -> None:
        """End it."""
        ...


class RunningSandbox:
    """A sandbox process that belongs to us. A context manager: leaving it stops the process."""

    def __init__(
        self,
        process: Process,
        url: str,
        credentials_path: Path,
        data_dir: Path,
        *,
        hosts: Mapping[str, str],
    ) -> None:
        self.process = process
        self.url = url
        self.hosts = hosts  # where channels that have a port of their own are: {"cards": "tcp://…"}
        self.credentials_path = credentials_path
        self.data_dir = data_dir
        self.credentials: dict[str, dict[str, str]] = msgspec.json.decode(
            credentials_path.read_bytes()
        )
        # Its address is plain HTTP; to get ready for TLS all the same takes 20 ms.
        self._http = httpx2.Client(
            base_url=f"{url}/control/", verify=False, trust_env=False, timeout=30
        )

    def get(self, path: str, **query: str | int) -> Any:
        """Ask the control API: ``sandbox.get("trades", channel="wechat")``."""
        return _answered(self._http.get(path, params=query))

    def post(self, path: str, **body: Any) -> Any:
        """Tell the control API: ``sandbox.post("clock", advance_s=60)``."""
        return _answered(self._http.post(path, json=body))

    def delete(self, path: str) -> Any:
        """Delete at the control API: ``sandbox.delete("faults")``."""
        return _answered(self._http.delete(path))

    def fault(self, channel: str, on: str, fault: str, *, number: str = "", times: int = 1) -> int:
        """Script a fault and return its id."""
        answer = self.post(
            "faults", channel=channel, on=on, fault=fault, number=number, times=times
        )
        return int(answer["id"])

    def advance(self, seconds: float) -> None:
        """Push the virtual clock and wait until everything due has happened."""
        self.post("clock", advance_s=seconds)
        self.settle()

    def settle(self, timeout_s: float = 10) -> None:
        """Wait until no callback and no appointment is due."""
        if not self.post("settle", timeout_s=timeout_s)["idle"]:
            raise TimeoutError("the sandbox still has something to do")

    def stop(self) -> None:
        """Stop the process and wait for it."""
        self._http.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()


def start_sandbox(data_dir: Path, *, port: int = 0) -> RunningSandbox:
    """Start ``python -m tongbao_sandbox`` on a directory and return it when it is ready."""
    command = [sys.executable, "-m", "tongbao_sandbox", *arguments(data_dir, port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own interpreter and module
    assert process.stdout is not None  # noqa: S101 - piped just above
    return ready(process, process.stdout.readline(), data_dir)


def arguments(data_dir: Path, port: int) -> list[str]:
    """Return the arguments of a sandbox that ends with this process."""
    places = ["--data-dir", str(data_dir), "--port", str(port)]
    return [*places, "--parent-pid", str(os.getpid())]


def ready(process: Process, line: str, data_dir: Path) -> RunningSandbox:
    """Return the sandbox that said this line when it was ready."""
    if not line:
        raise RuntimeError(f"the sandbox did not start: exit code {process.wait()}")
    said = msgspec.json.decode(line)
    credentials = Path(said["credentials"])
    return RunningSandbox(process, said["url"], credentials, data_dir, hosts=said["hosts"])


def _answered(answer: httpx2.Response) -> Any:
    if answer.status_code != httpx2.codes.OK:
        raise ValueError(f"control API: {answer.status_code} {answer.text}")
    return answer.json()
