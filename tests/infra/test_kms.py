"""Master keys in a file and in a security module, and the sealing keys that they wrap."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from msgspec.structs import replace

from tests.dying import dying
from tests.infra import softhsm
from tongbao.infra import key_file
from tongbao.infra.crypto import Keyring, Place, Sealing, SealUnreadable, sealing_key_of
from tongbao.infra.db import Db
from tongbao.infra.kms import _store as store
from tongbao.infra.kms import rewrapping
from tongbao.infra.kms.file import FileKms
from tongbao.infra.kms.model import Owner, SealingKeyDestroyed, SealingKeyNotFound
from tongbao.infra.kms.opening import key_desk, open_keyring
from tongbao.infra.kms.pkcs11 import Pkcs11Kms
from tongbao.infra.kms.port import Kms, KmsMisconfigured, KmsUnavailable, WrapUnreadable
from tongbao.infra.kms.sealing_keys import SealingKeys, destroy, list_sealing_keys, sealing_key
from tongbao.infra.settings import Secret, load_settings
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode

PURPOSE, AAD, KEY = "vault.card", b"whose", bytes(range(32))
PLACE = Place("card", "number_sealed", "1")
MERCHANT = Owner(UUID(int=7), Mode.LIVE)


@pytest.fixture
def token() -> Pkcs11Kms:
    return softhsm.token()


@pytest.fixture
def in_file(tmp_path: Path) -> FileKms:
    return FileKms(Keyring.from_file(tmp_path / "kek"), tmp_path / "kek")


@pytest.fixture(params=["file", "pkcs11"])
def kms(request: pytest.FixtureRequest) -> Kms:
    return request.getfixturevalue("in_file" if request.param == "file" else "token")


def rotated(kms: Kms) -> str:
    return kms.rotate(os.urandom(32) if kms.takes_components else None, new_id().hex).id


def test_what_a_keeper_wraps_it_unwraps_for_the_same_owner_alone(kms: Kms) -> None:
    wrapped = kms.wrap(KEY, AAD)
    assert kms.unwrap(wrapped, AAD) == KEY
    assert KEY not in wrapped
    assert kms.wrap(KEY, AAD) != wrapped
    with pytest.raises(WrapUnreadable):
        kms.unwrap(wrapped, b"another")
    for at in range(0, len(wrapped), 3):
        damaged = wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :]
        with pytest.raises(WrapUnreadable):
            kms.unwrap(damaged, AAD)
    for short in (b"", wrapped[:4], wrapped[:20]):
        with pytest.raises(WrapUnreadable):
            kms.unwrap(short, AAD)


def test_after_a_rotation_the_new_master_wraps_and_the_old_one_unwraps(kms: Kms) -> None:
    before, version = kms.wrap(KEY, AAD), kms.master_keys()[0].version
    newest = rotated(kms)
    assert (kms.master_keys()[0].id, kms.master_keys()[0].version) == (newest, version + 1)
    assert kms.unwrap(before, AAD) == KEY
    assert kms.master_of(before) != newest == kms.master_of(kms.wrap(KEY, AAD))


def test_a_repeated_rotation_makes_one_key(kms: Kms) -> None:
    material = os.urandom(32) if kms.takes_components else None
    first, again = (kms.rotate(material, "the same") for _ in range(2))
    assert first == again


def test_a_keeper_signs_and_knows_its_own_signature(kms: Kms) -> None:
    signature = kms.sign(b"message")
    assert kms.verify(b"message", signature)
    assert not kms.verify(b"massage", signature)
    rotated(kms)
    assert kms.verify(b"message", signature)


def test_a_module_gives_no_master_key_out(token: Pkcs11Kms) -> None:
    with token._session() as session:
        [master, *_] = token._masters(session)
        with pytest.raises(token._api.exceptions.PKCS11Error):
            master[token._api.Attribute.VALUE]


def test_two_master_keys_of_one_version_are_told_apart(token: Pkcs11Kms) -> None:
    """As two processes make them that find an empty token at once."""
    before = token.wrap(KEY, AAD)
    with token._session() as session:
        for reference in ("one", "other"):
            token._make(session, 900, reference)
    wrapped = [token.wrap(KEY, AAD) for _ in range(4)]
    assert all(token.unwrap(each, AAD) == KEY for each in (before, *wrapped))


def test_a_wrong_pin_and_a_missing_module_are_told_apart(token: Pkcs11Kms) -> None:
    with pytest.raises(KmsUnavailable):
        Pkcs11Kms(Path("/nowhere.so"), "tongbao", Secret("1")).wrap(KEY, AAD)
    with pytest.raises(KmsUnavailable):
        Pkcs11Kms(token._module, "no such token", Secret("1")).wrap(KEY, AAD)
    with pytest.raises(KmsMisconfigured):
        token.rotate(KEY, "by hand")
    assert token.unwrap(token.wrap(KEY, AAD), AAD) == KEY


def test_the_key_file_lives_on_under_a_module(token: Pkcs11Kms, tmp_path: Path) -> None:
    path, place = tmp_path / "kek", b"place"
    sealed = Keyring.from_file(path).seal("channel.secrets", b"secret", place)
    environment = {
        "TONGBAO_DATA_DIR": str(tmp_path),
        "TONGBAO_KMS_PROVIDER": "pkcs11",
        "TONGBAO_KMS_MODULE": str(token._module),
        "TONGBAO_KMS_TOKEN": softhsm.TOKEN,
        "TONGBAO_KMS_PIN": softhsm.PIN,
    }
    settings = load_settings(environment)
    assert softhsm.PIN not in str(settings.masked())
    desk = key_desk(settings, open_keyring(settings))
    assert desk.wrap_lines() == 1
    text = path.read_text()
    assert text.startswith("wrapped:")
    assert open_keyring(settings).open("channel.secrets", sealed, place) == b"secret"
    rotated(desk.kms)
    desk.wrap_lines()
    assert path.read_text() != text
    assert open_keyring(settings).open("channel.secrets", sealed, place) == b"secret"
    fresh = load_settings({**environment, "TONGBAO_DATA_DIR": str(tmp_path / "new")})
    assert open_keyring(fresh).primary_id == open_keyring(fresh).primary_id
    assert (tmp_path / "new" / "kek").read_text().startswith("wrapped:")
    with pytest.raises(KmsMisconfigured):
        key_desk(replace(settings, kms_pin=None), Keyring([KEY]))


@pytest.mark.parametrize("cipher", list(Sealing))
async def test_each_owner_purpose_and_month_has_a_key_of_its_own(
    db: Db, in_file: FileKms, cipher: Sealing
) -> None:
    keys = SealingKeys(in_file, cipher)
    async with db.begin("test") as tx:
        ours = [await keys.seal(tx, MERCHANT, PURPOSE, b"secret", PLACE) for _ in range(2)]
        other_mode = Owner(MERCHANT.merchant_id, Mode.SANDBOX)
        others = [
            await keys.seal(tx, Owner(UUID(int=8), Mode.LIVE), PURPOSE, b"secret", PLACE),
            await keys.seal(tx, other_mode, PURPOSE, b"secret", PLACE),
            await keys.seal(tx, MERCHANT, "vault.use_key", b"secret", PLACE),
        ]
    db.clock.offset += timedelta(days=31)
    async with db.begin("test") as tx:
        others.append(await keys.seal(tx, MERCHANT, PURPOSE, b"secret", PLACE))
    used = {sealing_key_of(each) for each in ours + others}
    assert sealing_key_of(ours[0]) == sealing_key_of(ours[1])
    assert len(used) == 5
    again = SealingKeys(in_file)  # another process, with the other default cipher
    assert await again.open(db, MERCHANT, PURPOSE, ours[0], PLACE) == b"secret"
    for owner, purpose, place in (
        (other_mode, PURPOSE, PLACE),
        (MERCHANT, "vault.use_key", PLACE),
        (MERCHANT, PURPOSE, replace(PLACE, row="2")),
    ):
        with pytest.raises(SealUnreadable):
            await again.open(db, owner, purpose, ours[0], place)
    page = await list_sealing_keys(db, cursor=None, limit=3)
    rest = await list_sealing_keys(db, cursor=page.next_cursor, limit=3)
    assert {each.id for each in [*page.items, *rest.items]} == used


async def test_a_wrapped_key_moved_to_another_row_is_unreadable(db: Db, in_file: FileKms) -> None:
    keys = SealingKeys(in_file)
    async with db.begin("test") as tx:
        one = await keys.seal(tx, MERCHANT, PURPOSE, b"secret", PLACE)
        other = await keys.seal(tx, Owner(), PURPOSE, b"secret", PLACE)
        await tx.execute(
            "update sealing_key set wrapped = (select wrapped from sealing_key where id = $2)"
            " where id = $1",
            (sealing_key_of(one), sealing_key_of(other)),
        )
    with pytest.raises(WrapUnreadable):
        await SealingKeys(in_file).open(db, MERCHANT, PURPOSE, one, PLACE)


async def test_two_who_need_a_first_key_at_once_share_it(db: Db, in_file: FileKms) -> None:
    keys = SealingKeys(in_file)
    async with db.begin("one") as first:
        one = await keys.seal(first, MERCHANT, PURPOSE, b"secret", PLACE)

        async def wait() -> bytes:
            async with db.begin("other") as second:
                return await SealingKeys(in_file).seal(second, MERCHANT, PURPOSE, b"x", PLACE)

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0.05)
        assert not waiting.done()
    assert sealing_key_of(await waiting) == sealing_key_of(one)


async def test_a_destroyed_key_takes_everything_with_it(db: Db, in_file: FileKms) -> None:
    keys = SealingKeys(in_file)
    async with db.begin("test") as tx:
        gone = await keys.seal(tx, MERCHANT, PURPOSE, b"secret", PLACE)
        stays = await keys.seal(tx, Owner(), PURPOSE, b"secret", PLACE)
    assert await keys.open(db, MERCHANT, PURPOSE, gone, PLACE) == b"secret"
    key_id = sealing_key_of(gone)
    assert key_id is not None
    async with db.begin("test") as tx:
        for because in ("asked to be forgotten", "again"):
            row = await destroy(tx, key_id, because=because)
    assert (row.wrapped, row.destroyed_because) == (None, "asked to be forgotten")
    for each in (keys, SealingKeys(in_file)):  # who had it in memory forgets it too
        with pytest.raises(SealingKeyDestroyed):
            await each.open(db, MERCHANT, PURPOSE, gone, PLACE)
    assert await keys.open(db, Owner(), PURPOSE, stays, PLACE) == b"secret"
    async with db.begin("test") as tx:
        fresh = await keys.seal(tx, MERCHANT, PURPOSE, b"new", PLACE)
        with pytest.raises(SealingKeyNotFound):
            await destroy(tx, new_id(), because="there is none")
    assert sealing_key_of(fresh) != key_id
    assert await keys.open(db, MERCHANT, PURPOSE, fresh, PLACE) == b"new"


async def test_wrapping_anew_resumes_where_it_died(
    db: Db, kms: Kms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrapping, "BATCH", 2)
    keys = SealingKeys(kms)
    owners = [Owner(UUID(int=number), Mode.LIVE) for number in range(1, 6)]
    async with db.begin("test") as tx:
        sealed = [await keys.seal(tx, owner, PURPOSE, b"secret", PLACE) for owner in owners]
        destroyed = sealing_key_of(await keys.seal(tx, Owner(), PURPOSE, b"lost", PLACE))
        assert destroyed is not None
        await destroy(tx, destroyed, because="no longer needed")
    newest = rotated(kms)
    assert (await keys.left(db)).waiting == 5
    async with db.begin("test") as tx:
        await keys.rewrap_some(tx, 2)
    with dying("kms.before_rewrap_commit"):
        await rewrapping.rewrap_all(db, keys)
    assert ((await keys.left(db)).waiting, (await keys.left(db)).all_of_them) == (3, 5)
    again = await rewrapping.run_rewrap(db, keys, rewrapping.RewrapSealingKeys(), NO_LEASE)
    assert again is not None
    assert (await keys.left(db)).waiting == 0
    assert await rewrapping.rewrap_all(db, keys) == 0
    rows = [await store.GET.one(db, sealing_key_of(each)) for each in sealed]
    assert {row.master_key for row in rows} == {newest}
    for owner, each in zip(owners, sealed, strict=True):
        assert await SealingKeys(kms).open(db, owner, PURPOSE, each, PLACE) == b"secret"
    assert (await sealing_key(db, destroyed)).wrapped is None


async def test_an_old_master_key_can_be_put_away_once_all_is_wrapped_anew(
    db: Db, tmp_path: Path
) -> None:
    path = tmp_path / "kek"
    keys = SealingKeys(FileKms(Keyring.from_file(path), path))
    async with db.begin("test") as tx:
        sealed = await keys.seal(tx, MERCHANT, PURPOSE, b"secret", PLACE)
    key_file.add_key(path, KEY)
    await rewrapping.rewrap_all(db, keys)
    alone = SealingKeys(FileKms(Keyring([KEY]), None))
    assert await alone.open(db, MERCHANT, PURPOSE, sealed, PLACE) == b"secret"


NO_LEASE = None  # the round does not look at it
