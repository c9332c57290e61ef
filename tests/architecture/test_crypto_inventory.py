"""Cryptography is in few places, and each place is known."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

from tongbao.infra.crypto import PURPOSES
from tools.house import module_name, source_files

PRIMITIVES = {"cryptography", "pkcs11", "gmalglib", "argon2", "Crypto", "nacl", "hmac", "webauthn"}
PLACES = {
    "tongbao.infra.crypto": "the registry, and what it does",
    "tongbao.infra.certificates": "what X.509 certificates say",
    "tongbao.infra.public_keys": "public keys of others, and their signatures",
    "tongbao.infra.settings": "secrets compared in constant time",
    "tongbao.kernel.one_time_codes": "HOTP, TOTP and OCRA, against the vectors of their RFCs",
    "tongbao.parties.identity.operators": "Argon2id, for operators",
    "tongbao.parties.authentication.passwords": "Argon2id, for people",
    "tongbao.parties.authentication.passkeys": "WebAuthn",
    "tongbao.infra.kms.pkcs11": "the security module",
}
"""Who may import a primitive beside the channels' own crypto modules, where what a channel insists
on is kept apart, and why."""
WEAK = {"md5", "sha1"}
WEAK_PLACES = {"tongbao.surfaces.jeepay", "tongbao.rails.channels", "tongbao.kernel.one_time_codes"}


@functools.cache
def modules() -> list[tuple[str, ast.Module]]:
    """Those of the platform that have one of the words at all; to parse all takes seconds."""
    words = re.compile("|".join(PRIMITIVES | WEAK))
    texts = ((module_name(path), path.read_text("utf-8")) for path in source_files("tongbao"))
    return [(name, ast.parse(text)) for name, text in texts if words.search(text)]


def imported(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "import_module"
            and isinstance(node.args[0], ast.Constant)
        ):
            found.add(str(node.args[0].value).partition(".")[0])
    return found


def is_a_channels(module: str) -> bool:
    return module.startswith("tongbao.rails.channels.") and module.endswith(".crypto")


def test_primitives_are_imported_where_the_list_says_and_nowhere_else() -> None:
    breaches = [
        f"{module} imports {', '.join(sorted(names))}"
        for module, tree in modules()
        if (names := imported(tree) & PRIMITIVES)
        and module not in PLACES
        and not is_a_channels(module)
    ]
    assert not breaches, "\n".join(breaches)


def test_no_place_is_listed_that_uses_none() -> None:
    using = {module for module, tree in modules() if imported(tree) & PRIMITIVES}
    assert set(PLACES) - using == set()


def test_broken_hashes_are_used_for_channels_and_facades_only() -> None:
    breaches = [
        f"{module}:{node.lineno} uses {node.attr}"
        for module, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in WEAK
        and not any(module.startswith(place) for place in WEAK_PLACES)
    ]
    assert not breaches, "\n".join(breaches)


def test_every_purpose_says_with_what_and_whose_key() -> None:
    for purpose in PURPOSES.values():
        assert purpose.algorithm.value
        assert purpose.meaning.endswith(".")
        assert purpose.key in {"file key", "sealing key", "none", *PURPOSES}


def test_the_contract_of_imports_and_this_list_agree() -> None:
    """The contract stops `cryptography` at any depth; this list is for the rest as well."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    for module in ("tongbao.infra.crypto", "tongbao.infra.certificates"):
        assert f"{module} -> cryptography" in text or f"{module}.** -> cryptography" in text
