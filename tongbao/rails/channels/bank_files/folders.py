"""The two folders: orders that are written once, and the bank's notices, read whole or not."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from msgspec import Struct

from tongbao.kernel.codecs.iso20022 import Booking, MessageMalformed, read_bookings

FILE_MAX: Final = 16 * 1024 * 1024
_NUMBER: Final = re.compile(r"[0-9a-z]{1,35}")


class Unwritable(Exception):
    """The order was not left in the folder: another stands there, or there is no folder."""


class Read(Struct, frozen=True):
    """What the bank's notices say of one number, and what of them could not be read."""

    bookings: tuple[Booking, ...]
    files: tuple[str, ...]  # where the bookings stand
    unreadable: tuple[str, ...]


def is_number(text: str) -> bool:
    """Whether a number of ours may name a file and an end-to-end id."""
    return _NUMBER.fullmatch(text) is not None


def path_out(folder: str, number: str) -> Path:
    """Return where an order of this number goes."""
    return Path(folder) / "out" / f"{number}.xml"


def was_left(folder: str, number: str) -> bool:
    """Whether an order of this number waits for the carrier, or is among what it has taken."""
    waiting = path_out(folder, number)
    return waiting.exists() or (waiting.parent.parent / "sent" / waiting.name).exists()


def leave(folder: str, number: str, message: bytes) -> None:
    """Put the order where the bank's carrier takes it, whole or not at all; a repeat does nothing.

    What the carrier has taken it moves to ``sent``, by one rename.

    Raises:
        Unwritable: there is another order under this number, or nowhere to write.
    """
    path = path_out(folder, number)
    try:
        for known in (path, path.parent.parent / "sent" / path.name):
            if known.exists():
                _compare(known, message)
                return
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(message)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        try:
            os.link(part, path)  # fails where somebody was faster, and never writes over it
        except FileExistsError:
            _compare(path, message)
        finally:
            part.unlink()
    except OSError as failure:
        raise Unwritable(f"the folder cannot be written: {failure.strerror}") from None


def _compare(path: Path, message: bytes) -> None:
    if path.read_bytes() != message:
        raise Unwritable("another order was written under this number")


def read_notices(folder: str, account: str, number: str) -> Read:
    """Return what every camt.054 in the folder says of the number, newest file name last.

    Raises:
        OSError: the folder cannot be read, so it says nothing.
    """
    found: list[Booking] = []
    files: list[str] = []
    unreadable: list[str] = []
    for path in sorted((Path(folder) / "in").iterdir()):
        if path.suffix != ".xml" or path.is_symlink() or not path.is_file():
            continue
        if path.stat().st_size > FILE_MAX:
            unreadable.append(path.name)
            continue
        raw = path.read_bytes()
        is_whole = b"camt.054" in raw and raw.rstrip().endswith(b"Document>")
        if is_whole and number.encode() not in raw:
            continue  # not worth parsing: nothing in it is about this number
        try:
            bookings = read_bookings(raw, account)
        except MessageMalformed:
            unreadable.append(path.name)
            continue
        about = [booking for booking in bookings if booking.end_to_end_id == number]
        found += about
        files += [path.name] * bool(about)
    return Read(tuple(dict.fromkeys(found)), tuple(files), tuple(unreadable))
