"""The two dialects of UnionPay, as tables: the switch's between hosts, and the terminals'.

From the messages of UnionPay's own simulator and a terminal's sign-in (tests/vectors/iso8583).
Between hosts everything is ASCII; a terminal packs its digits two to a byte.
"""

from __future__ import annotations

from typing import Final

from tongbao.kernel.codecs.iso8583 import Dialect, Field

_SHARED: Final[dict[int, Field]] = {
    2: Field("n", 19, 2),  # card number
    3: Field("n", 6),  # processing code
    4: Field("n", 12),  # amount
    5: Field("n", 12),
    6: Field("n", 12),
    7: Field("n", 10),  # transmission time, MMDDhhmmss
    9: Field("n", 8),
    10: Field("n", 8),
    11: Field("n", 6),  # trace number
    12: Field("n", 6),  # local time, hhmmss
    13: Field("n", 4),  # local date, MMDD
    14: Field("n", 4),  # expiry, YYMM
    15: Field("n", 4),  # settlement date, MMDD
    16: Field("n", 4),
    18: Field("n", 4),  # merchant category
    19: Field("n", 3),
    22: Field("n", 3),  # how the card was read
    23: Field("n", 3),  # card sequence number
    25: Field("n", 2),  # condition: 00 ordinary, 06 pre-authorised
    26: Field("n", 2),  # longest PIN taken
    28: Field("an", 9),  # fee: a sign and eight digits
    32: Field("n", 11, 2),  # acquiring institution
    33: Field("n", 11, 2),  # forwarding institution
    35: Field("z", 37, 2),  # track 2
    36: Field("z", 104, 3),  # track 3
    37: Field("an", 12),  # retrieval reference
    38: Field("an", 6),  # authorisation code
    39: Field("an", 2),  # response code
    41: Field("ans", 8),  # terminal
    42: Field("ans", 15),  # merchant
    43: Field("ans", 40),  # merchant's name and place
    44: Field("ans", 25, 2),
    45: Field("ans", 79, 2),
    48: Field("ans", 512, 3),
    49: Field("an", 3),  # currency, ISO 4217 number
    50: Field("an", 3),
    51: Field("an", 3),
    52: Field("b", 8),  # PIN block
    53: Field("n", 16),  # how the PIN is encrypted
    54: Field("an", 120, 3),  # balances
    55: Field("b", 255, 3),  # chip data
    57: Field("ans", 100, 3),
    58: Field("ans", 100, 3),
    59: Field("ans", 600, 3),
    60: Field("ans", 100, 3),
    61: Field("ans", 200, 3),
    62: Field("ans", 200, 3),
    63: Field("ans", 512, 3),
    64: Field("b", 8),  # MAC
}

CUPS: Final = Dialect(
    "cups",
    {
        **_SHARED,
        66: Field("an", 1),
        70: Field("n", 3),  # network management code
        74: Field("n", 10),
        75: Field("n", 10),
        76: Field("n", 10),
        77: Field("n", 10),
        86: Field("n", 16),
        87: Field("n", 16),
        88: Field("n", 16),
        89: Field("n", 16),
        90: Field("n", 42),  # what the message is about: type, trace, time, institutions
        96: Field("b", 8),
        97: Field("an", 17),
        99: Field("n", 11, 2),
        100: Field("n", 11, 2),  # receiving institution
        102: Field("ans", 28, 2),
        103: Field("ans", 28, 2),
        121: Field("ans", 100, 3),
        122: Field("ans", 100, 3),
        123: Field("ans", 999, 3),
        128: Field("b", 8),  # MAC, where a field beyond 64 is there
    },
)
"""Between hosts (银联交换系统): ASCII throughout, PIN block, chip data and MAC binary."""

POS: Final = Dialect(
    "pos",
    {**_SHARED, 48: Field("n", 322, 3), 60: Field("n", 17, 3)},
    packed=True,
)
"""Of a terminal: packed digits. Its lengths count digits, characters or bytes, as the type says."""
