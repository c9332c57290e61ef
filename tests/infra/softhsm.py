"""A security module in software, where the machine has one."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.outsiders import lacking
from tongbao.infra.kms.pkcs11 import Pkcs11Kms
from tongbao.infra.settings import Secret

TOKEN, PIN = "tongbao", "482915"


def find_module() -> Path:
    """The library of SoftHSM 2; the test is skipped without it, or fails where it is required."""
    found = [
        path
        for path in (
            Path("/usr/lib/softhsm/libsofthsm2.so"),
            *Path("/usr/lib").glob("*/softhsm/libsofthsm2.so"),
        )
        if path.exists()
    ]
    missing = "" if found and shutil.which("softhsm2-util") else "SoftHSM 2 is not installed"
    try:
        import pkcs11
    except ImportError:
        missing = "python-pkcs11 is not installed"
    else:
        assert pkcs11
    if missing:
        lacking("softhsm", missing)
    return found[0]


@functools.cache
def token() -> Pkcs11Kms:
    """A token for all tests of this process: the library reads once in its life where they lie."""
    module = find_module()
    kept = tempfile.TemporaryDirectory(prefix="tongbao-hsm-")
    atexit.register(kept.cleanup)
    folder = Path(kept.name)
    (folder / "tokens").mkdir()
    conf = folder / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n")
    os.environ["SOFTHSM2_CONF"] = str(conf)
    made = ("softhsm2-util", "--init-token", "--free", "--label", TOKEN)
    subprocess.run([*made, "--pin", PIN, "--so-pin", "90210042"], check=True, capture_output=True)
    return Pkcs11Kms(module, TOKEN, Secret(PIN))
