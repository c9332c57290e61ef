"""Where a customer pays a combined payment: an address nobody finds without being given it.

It is the payment's number and 128 bits of a MAC over it, so that nothing is kept for it.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.infra.crypto import Keyring, bind, constant_time_equal, hmac_sha256
from tongbao.infra.db import Db
from tongbao.kernel.ids import UnknownId, base32, from_base32
from tongbao.payments.combining import _store as store
from tongbao.payments.combining.model import CombinedNotFound, CombinedPayment

PREFIX: Final = "/pay/m"
_PURPOSE: Final = "combined.page"
_NUMBER: Final = 26
_MAC: Final = 32


def path_of(keyring: Keyring, combined_id: UUID) -> str:
    """Return the path of a combined payment's page."""
    return f"{PREFIX}/{base32(combined_id)}{_mac(keyring, combined_id)}"


async def combined_of_token(db: Db, keyring: Keyring, token: str) -> CombinedPayment:
    """Return the combined payment whose page an address is.

    Raises:
        CombinedNotFound: also where only the number is right.
    """
    try:
        combined_id = from_base32(token[:_NUMBER])
    except UnknownId:
        raise CombinedNotFound from None
    if not constant_time_equal(_mac(keyring, combined_id).encode(), token[_NUMBER:].encode()):
        raise CombinedNotFound
    found = await store.FIND_COMBINED_ANYWHERE.first(db, combined_id)
    if found is None:
        raise CombinedNotFound
    return found


def _mac(keyring: Keyring, combined_id: UUID) -> str:
    key = keyring.mac_key(_PURPOSE)
    return hmac_sha256(key, bind("combined_payment", combined_id)).hex()[:_MAC]
