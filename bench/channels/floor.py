"""The floor: the signatures and encryption a payment cannot do without, timed bare meanwhile.

The primitives are called directly, with keys of the size each protocol prescribes, loaded before.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import threading
import time
from collections.abc import Callable
from typing import Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

_DOCUMENT = os.urandom(1200)
_ROUNDS = 400
_ROUNDS_BESIDE = 4
_PAUSE_S = 0.2

Work = Callable[[], object]


class Primitive(Struct, frozen=True):
    """One primitive and what it took, in microseconds of a processor."""

    name: str
    us: float


def works() -> dict[str, Work]:
    """Return every primitive that the channels' protocols and our own webhooks use, with keys."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public, scheme = private.public_key(), padding.PKCS1v15()
    signature = private.sign(_DOCUMENT, scheme, hashes.SHA256())
    box, nonce = AESGCM(os.urandom(32)), os.urandom(12)
    sealed = box.encrypt(nonce, _DOCUMENT, b"transaction")
    ours, key = ed25519.Ed25519PrivateKey.generate(), os.urandom(32)
    return {
        "sign": lambda: private.sign(_DOCUMENT, scheme, hashes.SHA256()),
        "verify": lambda: public.verify(signature, _DOCUMENT, scheme, hashes.SHA256()),
        "open": lambda: box.decrypt(nonce, sealed, b"transaction"),
        "hmac": lambda: hmac.digest(key, _DOCUMENT, hashlib.sha256),
        "md5": lambda: hashlib.md5(_DOCUMENT).hexdigest(),
        "ed25519": lambda: base64.b64encode(ours.sign(_DOCUMENT)),
    }


def primitives() -> list[Primitive]:
    """Time every primitive alone: the best of five rounds."""
    return [_alone(name, work) for name, work in works().items()]


def _alone(name: str, work: Work) -> Primitive:
    best = min(_timed(work, _ROUNDS // 5) for _ in range(5))
    return Primitive(name, best)


def _timed(work: Work, times: int) -> float:
    begun = time.thread_time_ns()
    for _ in range(times):
        work()
    return (time.thread_time_ns() - begun) / times / 1000


class Beside:
    """Times the primitives now and then while something else goes on.

    A machine that has other work to do makes signatures dearer as it makes everything dearer. So
    the floor is what they take on the same processors in the same seconds, on the average.
    """

    def __init__(self) -> None:
        self._works = works()
        self._sums = dict.fromkeys(self._works, 0.0)
        self._rounds = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_failure: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            for name, work in self._works.items():
                self._sums[name] += _timed(work, _ROUNDS_BESIDE)
            self._rounds += 1
            if self._stop.wait(_PAUSE_S):
                return

    def floor_us(self, channel: str) -> float:
        """Return what a payment at the channel must at least spend, in microseconds."""
        return sum(self._sums[step] / self._rounds for step in STEPS[channel])


STEPS: dict[str, tuple[str, ...]] = {
    # Ours in every payment: the merchant's request (HMAC), and the webhook (HMAC and Ed25519).
    "wechat_pay": ("hmac", "sign", "verify", "verify", "open", "hmac", "ed25519"),
    "alipay": ("hmac", "sign", "verify", "verify", "hmac", "ed25519"),
    "unionpay": ("hmac", "sign", "verify", "verify", "hmac", "ed25519"),
    "unionpay_qra": ("hmac", "md5", "md5", "md5", "hmac", "ed25519"),
}
"""Create: sign the request, verify the answer. Callback: verify it, open it where it is sealed.

UnionPay's certificate comes with each answer; its chain is checked once and remembered.
"""


async def thread_hop_us(rounds: int = 500) -> float:
    """Return what it takes to let a thread do nothing, in microseconds of a processor."""
    begun = time.process_time_ns()
    for _ in range(rounds):
        await asyncio.to_thread(int)
    return (time.process_time_ns() - begun) / rounds / 1000


def signatures_per_second(threads: int, seconds: float = 1.0) -> float:
    """Return how many RSA-2048 signatures so many threads make together in a second."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    counts = [0] * threads
    stop = threading.Event()

    def work(place: int) -> None:
        while not stop.is_set():
            private.sign(_DOCUMENT, padding.PKCS1v15(), hashes.SHA256())
            counts[place] += 1

    running = [threading.Thread(target=work, args=(place,)) for place in range(threads)]
    begun = time.perf_counter()
    for each in running:
        each.start()
    time.sleep(seconds)
    stop.set()
    for each in running:
        each.join()
    return sum(counts) / (time.perf_counter() - begun)
