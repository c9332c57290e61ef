"""The envelope, the key file, and the primitives against vectors that others wrote."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tongbao.infra import crypto, key_file
from tongbao.infra.crypto import Keyring, SealUnreadable, bind
from tongbao.infra.key_file import KeyFileUnreadable
from tongbao.ledger.proofs import verifier

VECTORS = Path(__file__).parents[1] / "vectors" / "wycheproof"
KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
PURPOSE, OTHER_PURPOSE = "channel.secrets", "webhook.secret"
PLACE = bind("channel_account", "secrets", "row 1")
RING = Keyring([KEY])


def groups(name: str) -> list[dict[str, Any]]:
    return json.loads((VECTORS / name).read_text())["testGroups"]


@given(st.binary(max_size=300), st.binary(max_size=50))
def test_what_was_sealed_opens_again(secret: bytes, place: bytes) -> None:
    assert RING.open(PURPOSE, RING.seal(PURPOSE, secret, place), place) == secret


@given(st.binary(max_size=40), st.integers(min_value=0), st.integers(1, 255))
def test_any_changed_byte_makes_it_unreadable(secret: bytes, at: int, flip: int) -> None:
    sealed = bytearray(RING.seal(PURPOSE, secret, PLACE))
    sealed[at % len(sealed)] ^= flip
    with pytest.raises(SealUnreadable):
        RING.open(PURPOSE, bytes(sealed), PLACE)


@given(st.binary(max_size=120))
def test_any_text_that_was_not_sealed_is_unreadable(text: bytes) -> None:
    with pytest.raises(SealUnreadable):
        RING.open(PURPOSE, text, PLACE)


@pytest.mark.parametrize("length", [0, 1, 5, 68, 84])
def test_a_truncated_text_is_unreadable(length: int) -> None:
    with pytest.raises(SealUnreadable):
        RING.open(PURPOSE, RING.seal(PURPOSE, b"secret", PLACE)[:length], PLACE)


def test_a_secret_moved_to_another_row_or_purpose_is_unreadable() -> None:
    sealed = RING.seal(PURPOSE, b"secret", PLACE)
    with pytest.raises(SealUnreadable):
        RING.open(PURPOSE, sealed, bind("channel_account", "secrets", "row 2"))
    with pytest.raises(SealUnreadable):
        RING.open(OTHER_PURPOSE, sealed, PLACE)


def test_another_file_key_does_not_open_it() -> None:
    sealed = RING.seal(PURPOSE, b"secret", PLACE)
    with pytest.raises(SealUnreadable):
        Keyring([OTHER_KEY]).open(PURPOSE, sealed, PLACE)


def test_a_key_that_poses_under_the_same_id_is_caught_by_the_commitment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crypto, "_key_id", lambda _: b"same")
    sealed = Keyring([KEY]).seal(PURPOSE, b"secret", PLACE)
    monkeypatch.setattr(crypto, "aes_256_gcm_decrypt", lambda *_: pytest.fail("went too far"))
    with pytest.raises(SealUnreadable):
        Keyring([OTHER_KEY]).open(PURPOSE, sealed, PLACE)


def test_the_same_secret_never_looks_the_same_twice() -> None:
    assert RING.seal(PURPOSE, b"secret", PLACE) != RING.seal(PURPOSE, b"secret", PLACE)


def test_a_purpose_outside_the_registry_or_of_another_kind_is_a_bug() -> None:
    with pytest.raises(KeyError):
        RING.seal("lunch", b"secret", PLACE)
    with pytest.raises(ValueError, match="HMAC"):
        RING.seal("api.request", b"secret", PLACE)
    with pytest.raises(ValueError, match="kept elsewhere"):
        RING.mac_key("api.request")


def test_mac_keys_differ_by_purpose() -> None:
    assert RING.mac_key("session.token") != RING.mac_key("payment_code")
    assert RING.mac_key("session.token") == Keyring([KEY]).mac_key("session.token")


def test_every_purpose_names_where_its_key_is() -> None:
    for purpose in crypto.PURPOSES.values():
        assert purpose.key in {"file key", "sealing key", "none"} | set(crypto.PURPOSES)


def test_every_purpose_of_the_file_key_is_used_by_some_domain() -> None:
    package = Path(crypto.__file__).parents[1]
    written = "".join(path.read_text() for path in package.rglob("*.py") if path.stem != "crypto")
    for purpose in crypto.PURPOSES.values():
        if purpose.key in {"file key", "sealing key"}:
            assert f'"{purpose.name}"' in written, purpose.name


def test_after_a_rotation_the_old_opens_and_the_new_seals() -> None:
    before = RING.seal(PURPOSE, b"secret", PLACE)
    rotated = Keyring([OTHER_KEY, KEY])
    assert rotated.open(PURPOSE, before, PLACE) == b"secret"
    assert not rotated.is_current(before)
    assert rotated.is_current(rotated.seal(PURPOSE, b"secret", PLACE))


@given(st.lists(st.binary(max_size=5), max_size=4), st.lists(st.binary(max_size=5), max_size=4))
def test_no_two_places_look_alike(one: list[bytes], other: list[bytes]) -> None:
    assert (bind(*one) == bind(*other)) == (one == other)


def test_the_key_file_is_made_on_first_use_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kek"
    sealed = Keyring.from_file(path).seal(PURPOSE, b"secret", PLACE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Keyring.from_file(path).open(PURPOSE, sealed, PLACE) == b"secret"
    assert [entry.name for entry in path.parent.iterdir()] == ["kek"]


def test_processes_that_make_the_key_file_at_once_end_with_one_key(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    texts: list[str] = []
    gate = threading.Barrier(8)

    def make() -> None:
        gate.wait()
        texts.append(key_file.create(path))

    # Threads share a process id, so each gets a name of its own to stand for a process.
    threads = [threading.Thread(target=make) for _ in range(8)]
    getpid = iter(range(8)).__next__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_file.os, "getpid", getpid)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(texts) == 8
    assert set(texts) == {path.read_text()}


@pytest.mark.parametrize("text", ["", "short\n", "!!!\n", "A" * 44 + "\n"])
def test_a_damaged_key_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kek"
    path.touch(mode=0o600)
    path.write_text(text)
    with pytest.raises(KeyFileUnreadable):
        Keyring.from_file(path)


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    Keyring.from_file(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileUnreadable):
        Keyring.from_file(path)


def test_a_keyring_shows_no_key() -> None:
    assert KEY.hex() not in repr(RING)


def test_aes_256_gcm_agrees_with_wycheproof() -> None:
    tried = 0
    for group in groups("aes_gcm_test.json"):
        if (group["keySize"], group["ivSize"], group["tagSize"]) != (256, 96, 128):
            continue
        for case in group["tests"]:
            key, nonce, aad, text, ciphertext, tag = (
                bytes.fromhex(case[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")
            )
            opened = crypto.aes_256_gcm_decrypt(key, nonce, ciphertext + tag, aad)
            if case["result"] == "valid":
                assert crypto.aes_256_gcm_encrypt(key, nonce, text, aad) == ciphertext + tag
            assert opened == (text if case["result"] == "valid" else None), case["tcId"]
            tried += 1
    assert tried > 50


def test_sm4_gcm_agrees_with_wycheproof() -> None:
    tried = 0
    for group in groups("sm4_gcm_test.json"):
        if group["ivSize"] != 96:
            continue
        for case in group["tests"]:
            key, nonce, aad, text, ciphertext, tag = (
                bytes.fromhex(case[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")
            )
            opened = crypto.sm4_gcm_decrypt(key, nonce, ciphertext + tag, aad)
            if case["result"] == "valid":
                assert crypto.sm4_gcm_encrypt(key, nonce, text, aad) == ciphertext + tag
            assert opened == (text if case["result"] == "valid" else None), case["tcId"]
            tried += 1
    assert tried > 50


@pytest.mark.parametrize("cipher", list(crypto.Sealing))
def test_under_a_sealing_key_only_the_same_key_purpose_and_place_open(
    cipher: crypto.Sealing, monkeypatch: pytest.MonkeyPatch
) -> None:
    purpose, place = "vault.card", crypto.Place("card", "number_sealed", "1", "m/live")
    key = crypto.ClearKey(UUID(int=1), cipher, KEY)
    sealed = crypto.seal_under(key, purpose, b"secret", place)
    assert crypto.open_under(key, purpose, sealed, place) == b"secret"
    assert (sealed[:2], crypto.sealing_key_of(sealed)) == (bytes([2, cipher]), key.id)
    assert KEY.hex() not in repr(key)
    for part in ({"table": "x"}, {"column": "x"}, {"row": "2"}, {"tenant": "n/live"}):
        with pytest.raises(SealUnreadable):
            crypto.open_under(key, purpose, sealed, replace(place, **part))
    for flip in range(len(sealed)):
        damaged = sealed[:flip] + bytes([sealed[flip] ^ 1]) + sealed[flip + 1 :]
        with pytest.raises(SealUnreadable):
            crypto.open_under(key, purpose, damaged, place)
    monkeypatch.setattr(crypto, "aes_256_gcm_decrypt", lambda *_: pytest.fail("went too far"))
    monkeypatch.setattr(crypto, "sm4_gcm_decrypt", lambda *_: pytest.fail("went too far"))
    with pytest.raises(SealUnreadable):  # by the commitment, before anything is decrypted
        crypto.open_under(crypto.ClearKey(key.id, cipher, OTHER_KEY), purpose, sealed, place)


def test_mac_keys_outlive_a_rotation() -> None:
    rotated = Keyring([OTHER_KEY, KEY])
    assert rotated.mac_key("session.token") == RING.mac_key("session.token")


def test_a_process_takes_up_a_key_that_another_has_put_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    running, before = Keyring.from_file(path), path.read_text()
    for _ in range(2):
        key_file.add_key(path, KEY)
    assert len(path.read_text().split()) == 2
    assert path.read_text().endswith(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    sealed = Keyring.from_file(path).seal(PURPOSE, b"secret", PLACE)
    assert not running.is_current(sealed)
    assert running.open(PURPOSE, sealed, PLACE) == b"secret"
    assert running.is_current(sealed)


def test_a_wrapped_line_needs_what_wrapped_it(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    mirror = key_file.Wrapping(lambda key: key[::-1], lambda wrapped: wrapped[::-1])
    plain = Keyring.from_file(path)
    assert key_file.wrap_keys(path, mirror) == 1
    assert path.read_text().startswith("wrapped:")
    assert Keyring.from_file(path, wrapping=mirror).primary_id == plain.primary_id
    with pytest.raises(KeyFileUnreadable):
        Keyring.from_file(path)


def test_aes_256_gcm_takes_no_other_sizes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        crypto.aes_256_gcm_encrypt(bytes(16), bytes(12), b"", b"")
    with pytest.raises(ValueError, match="32 bytes"):
        crypto.aes_256_gcm_decrypt(bytes(32), bytes(8), b"", b"")


def test_ed25519_agrees_with_wycheproof() -> None:
    tried = 0
    for group in groups("ed25519_test.json"):
        public_key = bytes.fromhex(group["publicKey"]["pk"])
        for case in group["tests"]:
            message, signature = bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"])
            verified = crypto.ed25519_verify(public_key, message, signature)
            assert verified == (case["result"] == "valid"), case["tcId"]
            tried += 1
    assert tried > 100


def test_an_ed25519_signature_verifies_under_its_public_key_only() -> None:
    key = crypto.ed25519_new_key()
    public = crypto.ed25519_public_key(key)
    signature = crypto.ed25519_sign(key, b"message")
    assert crypto.ed25519_verify(public, b"message", signature)
    assert not crypto.ed25519_verify(public, b"massage", signature)
    assert not crypto.ed25519_verify(b"short", b"message", signature)


def test_hmac_is_over_the_parts_in_a_row() -> None:
    # RFC 4231, test case 2
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert crypto.hmac_sha256(b"Jefe", b"what do ya want ", b"for nothing?").hex() == expected


def test_hmac_sm3_agrees_with_wycheproof() -> None:
    tried = 0
    for group in groups("hmac_sm3_test.json"):
        size = group["tagSize"] // 8
        for case in group["tests"]:
            key, message, tag = (bytes.fromhex(case[name]) for name in ("key", "msg", "tag"))
            made = crypto.hmac_sm3(key, message[:7], message[7:])[:size]
            assert (made == tag) == (case["result"] == "valid"), case["tcId"]
            tried += 1
    assert tried == 174


@pytest.mark.parametrize("digest", [lambda raw: hashlib.new("sm3", raw).digest(), verifier.sm3])
def test_sm3_is_gb_t_32905_annex_a(digest: Callable[[bytes], bytes]) -> None:
    """The library's, and the one that receipts are checked with where there is no library."""
    short, long = (
        "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0",
        "debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732",
    )
    assert digest(b"abc").hex() == short
    assert digest(b"abcd" * 16).hex() == long
    for size in (0, 55, 56, 63, 64, 65, 119, 120, 128):
        assert digest(bytes(size)) == hashlib.new("sm3", bytes(size)).digest()


def test_equality_is_of_bytes() -> None:
    assert crypto.constant_time_equal(b"a", b"a")
    assert not crypto.constant_time_equal(b"a", b"ab")


def test_the_name_of_a_new_key_file_is_on_the_disk_before_the_key_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []

    def fsync(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink())

    monkeypatch.setattr(os, "fsync", fsync)
    Keyring.from_file(tmp_path / "kek")
    assert synced[-1] == tmp_path
