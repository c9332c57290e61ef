"""Documents at rest: whole or not at all, of the kind they are said to be, for our eyes only."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.sandboxes import start_sandbox
from tongbao.infra import failpoints
from tongbao.infra.blobs import s3
from tongbao.infra.blobs.envelope import PIECE_BYTES
from tongbao.infra.blobs.folder import FolderShelf
from tongbao.infra.blobs.model import (
    Blob,
    BlobDamaged,
    BlobEmpty,
    BlobKindDiffers,
    BlobNameMalformed,
    BlobNotFound,
    BlobStoreRefused,
    BlobStoreUnavailable,
    BlobTooLarge,
    Kind,
)
from tongbao.infra.blobs.place import blobs_of
from tongbao.infra.blobs.s3 import S3Shelf
from tongbao.infra.blobs.sigv4 import S3Key, signed_headers
from tongbao.infra.blobs.store import Blobs
from tongbao.infra.crypto import Keyring
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.infra.http import Anywhere, HttpClient
from tongbao.infra.settings import Secret, SettingInvalid, load_settings
from tongbao_sandbox.launch import RunningSandbox

KEYS = Keyring([bytes(range(32))])
PDF = b"%PDF-1.7\n" + os.urandom(300_000)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        running.post("settings", hold_s=0.05)
        yield running


def key_of(sandbox: RunningSandbox, **changes: Any) -> S3Key:
    shown = sandbox.credentials["objects"]
    return replace(S3Key(shown["key_id"], Secret(shown["secret"]), shown["region"]), **changes)


def bucket(sandbox: RunningSandbox) -> str:
    return f"{sandbox.url}/s3/{sandbox.credentials['objects']['bucket']}"


@pytest.fixture(params=["folder", "s3"])
async def blobs(request: Any, tmp_path: Path, sandbox: RunningSandbox) -> AsyncIterator[Blobs]:
    """The store on each kind of shelf."""
    sandbox.delete("faults")
    http = HttpClient(Anywhere())
    shelf: Any = FolderShelf(tmp_path / "blobs")
    if request.param == "s3":
        shelf = S3Shelf(http, bucket(sandbox), key_of(sandbox))
    yield Blobs(shelf, KEYS, tmp_path / "halves")
    await http.close()


@pytest.fixture
async def remote(sandbox: RunningSandbox, tmp_path: Path) -> AsyncIterator[Blobs]:
    sandbox.delete("faults")
    made = Blobs(
        S3Shelf(HttpClient(Anywhere()), bucket(sandbox), key_of(sandbox)), KEYS, tmp_path / "halves"
    )
    yield made
    await made.close()


async def streamed(content: bytes, piece: int = 10_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), piece):
        yield content[start : start + piece]


async def test_what_is_put_is_what_is_read(blobs: Blobs) -> None:
    blob = await blobs.put("mch_1/licence/doc_1", streamed(PDF), kind=Kind.PDF)
    assert blob == Blob("mch_1/licence/doc_1", Kind.PDF, len(PDF), sha256(PDF).hexdigest())
    assert await blobs.get(blob) == PDF

    other = await blobs.put("mch_1/licence/doc_1", b"%PDF-1.4 another", kind=Kind.PDF)
    assert await blobs.get(other) == b"%PDF-1.4 another"
    with pytest.raises(BlobDamaged):  # the row names the first one
        await blobs.get(blob)

    await blobs.delete(blob.name)
    await blobs.delete(blob.name)
    with pytest.raises(BlobNotFound):
        await blobs.get(blob)


async def test_a_large_document_goes_in_parts(
    remote: Blobs, sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three requests of 5 MiB and less, so that memory holds no document whole."""
    monkeypatch.setattr(s3, "PART_BYTES", 5 * 1024 * 1024)
    content = os.urandom(11 * 1024 * 1024)
    blob = await remote.put("big/one", streamed(content, 700_001), kind=Kind.BYTES)
    assert await remote.get(blob) == content
    names = [each["name"] for each in sandbox.get("objects/objects")]
    assert [name for name in names if name.startswith(("upload.", "part."))] == []

    sandbox.fault("objects", "put", "http_503_not_done")
    with pytest.raises(BlobStoreUnavailable):
        await remote.put("big/two", content, kind=Kind.BYTES)
    names = [each["name"] for each in sandbox.get("objects/objects")]
    assert "object.big/two" not in names
    assert [name for name in names if name.startswith(("upload.", "part."))] == []


@pytest.mark.parametrize(
    "size", [1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES]
)
async def test_every_length_comes_back(tmp_path: Path, size: int) -> None:
    blobs = Blobs(FolderShelf(tmp_path / "blobs"), KEYS, tmp_path / "halves")
    content = os.urandom(size)
    blob = await blobs.put("a/b", content, kind=Kind.BYTES)
    assert await blobs.get(blob) == content


# What is not taken


@pytest.mark.parametrize(
    "name",
    [
        *("", "/a", "a/", "a//b", "../a", "a/../b", "a/.", "A", "a b", "a\0", "a/" * 6 + "a"),
        *("a" * 201, "a.b", "-a", "a\n", "商户"),
    ],
)
async def test_a_name_leads_nowhere_else(blobs: Blobs, name: str) -> None:
    with pytest.raises(BlobNameMalformed):
        await blobs.put(name, b"x", kind=Kind.BYTES)
    with pytest.raises(BlobNameMalformed):
        await blobs.get(Blob(name, Kind.BYTES, 1, ""))
    with pytest.raises(BlobNameMalformed):
        await blobs.delete(name)


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"x" * 100_000


async def test_a_document_that_does_not_end_is_cut_off(blobs: Blobs, tmp_path: Path) -> None:
    with pytest.raises(BlobTooLarge):
        await blobs.put("never/there", endless(), kind=Kind.BYTES, bytes_max=1_000_000)
    with pytest.raises(BlobTooLarge):
        await blobs.put("never/there", b"12345", kind=Kind.BYTES, bytes_max=4)
    with pytest.raises(BlobEmpty):
        await blobs.put("never/there", b"", kind=Kind.BYTES)
    with pytest.raises(BlobNotFound):
        await blobs.get(Blob("never/there", Kind.BYTES, 1, ""))
    assert list((tmp_path / "halves").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (Kind.PDF, b"<html>%PDF-"),
        (Kind.PNG, b"\xff\xd8\xff\xe0 a jpeg"),
        (Kind.XLSX, b"a;b;c"),
        (Kind.CSV, b"PK\x03\x04 an archive"),
        (Kind.CSV, b"a,b\0c"),
        (Kind.TEXT, b"MZ a program"),
        (Kind.TEXT, b"#!/bin/sh"),
        (Kind.XML, b"not xml"),
        (Kind.JSON, b"not json"),
    ],
)
async def test_a_document_is_of_the_kind_it_is_said_to_be(
    blobs: Blobs, kind: Kind, content: bytes
) -> None:
    with pytest.raises(BlobKindDiffers):
        await blobs.put("a/b", content, kind=kind)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (Kind.CSV, "日期,金额\n".encode("gb18030")),
        (Kind.CSV, b"\xef\xbb\xbfa,b"),
        (Kind.XML, b"\xef\xbb\xbf\n<Document/>"),
        (Kind.JSON, b" [1]"),
        (Kind.TEXT, "说明".encode()),
    ],
)
async def test_text_of_every_usual_encoding_is_taken(
    blobs: Blobs, kind: Kind, content: bytes
) -> None:
    assert await blobs.get(await blobs.put("a/b", content, kind=kind)) == content


# What lies there


async def test_a_file_says_nothing_and_belongs_to_us_alone(tmp_path: Path) -> None:
    blobs = Blobs(FolderShelf(tmp_path / "blobs"), KEYS, tmp_path / "halves")
    await blobs.put("mch_1/a/b/doc", b"%PDF-1.7 and a secret", kind=Kind.PDF)
    [file] = [each for each in (tmp_path / "blobs").rglob("*") if each.is_file()]
    assert b"secret" not in file.read_bytes()
    assert b"pdf" not in file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    folders = [tmp_path / "halves", tmp_path / "blobs", file.parent]
    assert {stat.S_IMODE(each.stat().st_mode) for each in folders} == {0o700}


@settings(max_examples=40)
@given(data=st.data())
def test_whatever_is_changed_in_a_file_is_noticed(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    blobs = Blobs(FolderShelf(folder / "blobs"), KEYS, folder / "halves")
    content = b"x" * (PIECE_BYTES * 2 + 50)
    blob = asyncio.run(blobs.put("a/b", content, kind=Kind.BYTES))
    file = folder / "blobs/a/b.blob"
    whole = file.read_bytes()
    sealed = PIECE_BYTES + 16
    end = len(whole) - 50 - 16
    damaged = data.draw(
        st.one_of(
            st.integers(0, len(whole) - 1).map(
                lambda at: whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
            ),
            st.integers(0, len(whole) - 1).map(lambda at: whole[:at]),
            st.just(whole[:end]),  # cut between two pieces
            st.just(whole[: end - sealed] + whole[end:]),  # a piece left out
            st.just(whole[: end - 2 * sealed] + whole[end - sealed : end] + whole[: 2 * sealed]),
            st.binary(min_size=1, max_size=80).map(lambda more: whole + more),
        )
    )
    file.write_bytes(damaged)
    with pytest.raises(BlobDamaged):
        asyncio.run(blobs.get(blob))


async def test_files_cannot_be_exchanged_for_one_another(tmp_path: Path) -> None:
    blobs = Blobs(FolderShelf(tmp_path / "blobs"), KEYS, tmp_path / "halves")
    one = await blobs.put("a/one", b"same", kind=Kind.TEXT)
    await blobs.put("a/two", b"same", kind=Kind.TEXT)
    (tmp_path / "blobs/a/two.blob").replace(tmp_path / "blobs/a/one.blob")
    with pytest.raises(BlobDamaged):
        await blobs.get(one)
    other_keys = Blobs(FolderShelf(tmp_path / "blobs"), Keyring([b"k" * 32]), tmp_path / "halves")
    two = await blobs.put("a/two", b"same", kind=Kind.TEXT)
    with pytest.raises(BlobDamaged):
        await other_keys.get(two)
    rotated = Keyring([b"k" * 32, bytes(range(32))])
    assert await Blobs(FolderShelf(tmp_path / "blobs"), rotated, tmp_path).get(two) == b"same"


# Dying on the way


@pytest.mark.parametrize("place", ["blobs.before_keep", "blobs.after_keep"])
async def test_a_document_is_there_whole_or_not_at_all(blobs: Blobs, place: str) -> None:
    first = await blobs.put("a/b", b"the first", kind=Kind.TEXT)
    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await blobs.put("a/b", b"the second", kind=Kind.TEXT)
    failpoints.arm(None)
    second = Blob("a/b", Kind.TEXT, 10, sha256(b"the second").hexdigest())
    is_there = second if place == "blobs.after_keep" else first
    assert sha256(await blobs.get(is_there)).hexdigest() == is_there.sha256


def test_what_a_killed_process_left_is_swept_a_day_later(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys; from pathlib import Path;"
        "from tongbao.infra.blobs.store import Blobs; from tongbao.infra.blobs.model import Kind;"
        "from tongbao.infra.blobs.folder import FolderShelf;"
        "from tongbao.infra.crypto import Keyring;"
        "p = Path(sys.argv[1]); b = Blobs(FolderShelf(p / 'blobs'), Keyring([bytes(32)]), p / 'h');"
        "asyncio.run(b.put('a/b', b'text', kind=Kind.TEXT))"
    )
    environment = {**os.environ, "TONGBAO_FAILPOINT": "blobs.before_keep:kill9"}
    done = subprocess.run([sys.executable, "-c", code, tmp_path], env=environment, check=False)
    assert done.returncode == -9
    assert not (tmp_path / "blobs").exists()
    [half] = (tmp_path / "h").iterdir()

    blobs = Blobs(FolderShelf(tmp_path / "blobs"), KEYS, tmp_path / "h")
    assert blobs.sweep() == 0
    os.utime(half, (0, 0))
    assert blobs.sweep() == 1
    assert Blobs(FolderShelf(tmp_path), KEYS, tmp_path / "none").sweep() == 0


# The object store


async def test_a_store_that_fails_is_busy_and_repeating_is_harmless(
    remote: Blobs, sandbox: RunningSandbox
) -> None:
    for fault in ("http_500_not_done", "time_out_done", "http_500_done"):
        sandbox.fault("objects", "put", fault)
        with pytest.raises(BlobStoreUnavailable):
            await remote.put("a/busy", b"text", kind=Kind.TEXT)
    blob = await remote.put("a/busy", b"text", kind=Kind.TEXT)
    for fault in ("http_503", "time_out"):
        sandbox.fault("objects", "get", fault)
        with pytest.raises(BlobStoreUnavailable):
            await remote.get(blob)
    for fault in ("truncate", "damage"):
        sandbox.fault("objects", "get", fault)
        with pytest.raises(BlobDamaged):
            await remote.get(blob)
    assert await remote.get(blob) == b"text"


async def test_a_store_that_refuses_us_says_why(sandbox: RunningSandbox, tmp_path: Path) -> None:
    """The store checks with code of its own what our code signed."""
    wrong = {
        "SignatureDoesNotMatch": (bucket(sandbox), key_of(sandbox, secret=Secret("wrong"))),
        "InvalidAccessKeyId": (bucket(sandbox), key_of(sandbox, key_id="nobody")),
        "AuthorizationHeaderMalformed": (bucket(sandbox), key_of(sandbox, region="mars")),
        "NoSuchBucket": (f"{sandbox.url}/s3/other", key_of(sandbox)),
    }
    for code, (url, key) in wrong.items():
        http = HttpClient(Anywhere())
        blobs = Blobs(S3Shelf(http, url, key), KEYS, tmp_path / "halves")
        with pytest.raises(BlobStoreRefused) as refused:
            await blobs.put("a/b", b"text", kind=Kind.TEXT)
        await http.close()
        assert refused.value.facts == {"reason": code}


async def test_a_store_that_is_not_there_is_busy(tmp_path: Path) -> None:
    key = S3Key("k", Secret("s"), "r")
    blobs = Blobs(S3Shelf(HttpClient(Anywhere()), "http://127.0.0.1:1/b", key), KEYS, tmp_path)
    with pytest.raises(BlobStoreUnavailable):
        await blobs.put("a/b", b"text", kind=Kind.TEXT)
    await blobs.close()


EXAMPLE = S3Key(
    "AKIAIOSFODNN7EXAMPLE", Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), "us-east-1"
)
AT = datetime(2013, 5, 24, tzinfo=UTC)
HOST = "https://examplebucket.s3.amazonaws.com"


@pytest.mark.parametrize(
    ("method", "url", "headers", "payload", "signature"),
    [
        (
            "GET",
            f"{HOST}/test.txt",
            {"range": "bytes=0-9"},
            b"",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            f"{HOST}/test$file.text",
            {"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET",
            f"{HOST}/?lifecycle",
            {},
            b"",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET",
            f"{HOST}/?max-keys=2&prefix=J",
            {},
            b"",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_signatures_are_those_of_the_s3_reference(
    method: str, url: str, headers: dict[str, str], payload: bytes, signature: str
) -> None:
    """The four examples of "Authorization Header: Single Chunk" in the Amazon S3 API Reference."""
    digest = sha256(payload).hexdigest()
    sent = signed_headers(method, url, EXAMPLE, at=AT, payload_sha256=digest, headers=headers)
    assert sent["authorization"].endswith(f"Signature={signature}")


def test_settings_choose_the_shelf(tmp_path: Path) -> None:
    plain = load_settings({"TONGBAO_DATA_DIR": str(tmp_path)})
    assert isinstance(blobs_of(plain, KEYS)._shelf, FolderShelf)
    named = replace(plain, blob_s3_url="https://s3.example.com/bucket", blob_s3_key_id="k")
    with pytest.raises(SettingInvalid) as refused:
        blobs_of(named, KEYS)
    assert refused.value.facts["name"] == "blob_s3_secret"
    whole = replace(named, blob_s3_secret=Secret("s"))
    assert isinstance(blobs_of(whole, KEYS)._shelf, S3Shelf)
