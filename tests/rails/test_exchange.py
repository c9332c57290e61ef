"""What a channel answers is read as a document or not at all, whatever it is."""

from __future__ import annotations

import pytest
from msgspec import Raw, Struct

from tongbao.rails.channels.exchange import decode


class Document(Struct):
    code: str = ""


DEEP = b"[" * 200_000 + b"]" * 200_000


@pytest.mark.parametrize(
    "raw",
    [b"", b"null", b"[]", b"\xff", b'{"code":1}', b'{"code":"\\ud800"}', b'{"more":%s}' % DEEP],
)
def test_what_is_no_document_is_none(raw: bytes) -> None:
    assert decode(raw, Document) is None


def test_a_deep_member_of_an_object_is_none() -> None:
    assert decode(b'{"node":%s}' % DEEP, dict[str, Raw]) is None
