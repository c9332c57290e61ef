"""Where a deployment keeps its documents, by its settings."""

from __future__ import annotations

from tongbao.infra.blobs.folder import FolderShelf
from tongbao.infra.blobs.model import Shelf
from tongbao.infra.blobs.s3 import S3Shelf
from tongbao.infra.blobs.scanning import Scanner
from tongbao.infra.blobs.sigv4 import S3Key
from tongbao.infra.blobs.store import Blobs
from tongbao.infra.crypto import Keyring
from tongbao.infra.http import Anywhere, HttpClient
from tongbao.infra.settings import SettingInvalid, Settings


def blobs_of(settings: Settings, keyring: Keyring) -> Blobs:
    """Return the document store that the settings name.

    Raises:
        SettingInvalid: a bucket is named without the key to it.
    """
    folder = settings.data_dir / "blobs" / ".half"
    return Blobs(_shelf(settings), keyring, folder, Scanner(settings.scanner_url))


def _shelf(settings: Settings) -> Shelf:
    if settings.blob_s3_url is None:
        return FolderShelf(settings.data_dir / "blobs")
    if settings.blob_s3_key_id is None or settings.blob_s3_secret is None:
        missing = "blob_s3_key_id" if settings.blob_s3_key_id is None else "blob_s3_secret"
        raise SettingInvalid(name=missing, variable=f"TONGBAO_{missing.upper()}")
    key = S3Key(settings.blob_s3_key_id, settings.blob_s3_secret, settings.blob_s3_region)
    return S3Shelf(HttpClient(Anywhere()), settings.blob_s3_url, key)
