"""Tokens that others sign, against Wycheproof: no forgery is taken, and no second text of one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tongbao.infra import jose

VECTORS = Path(__file__).parents[1] / "vectors" / "wycheproof"
GROUPS = json.loads((VECTORS / "json_web_signature_test.json").read_text())["testGroups"]


def taken(text: str, key: dict[str, Any]) -> bool:
    """Whether a partner who registered this key would be believed."""
    try:
        public = jose.check_public_key(key)
        jose.verify(jose.read_signed(text), public)
    except jose.TokenMalformed:
        return False
    return True


def is_ours(group: dict[str, Any]) -> bool:
    """Whether the group's key is of a kind that FAPI 2.0 lists, and says nothing else of itself."""
    key = group.get("public", {})
    named = {"RSA": ("PS256", None), "EC": ("ES256", "P-256")}.get(key.get("kty", ""))
    return named is not None and (key.get("alg", named[0]), key.get("crv")) == named


def test_tokens_are_taken_as_wycheproof_says() -> None:
    seen = Counter[tuple[bool, bool]]()
    refused = []
    for group in GROUPS:
        key = group.get("public") or group["private"]
        for case in group["tests"]:
            is_valid, is_taken = case["result"] == "valid", taken(case["jws"], key)
            seen[is_valid, is_taken] += 1
            if is_valid and not is_taken and is_ours(group):
                refused.append((group["comment"], case["comment"]))
    assert (seen[False, True], seen[False, False]) == (0, 355)
    assert seen[True, True] == 7
    # A payload of nothing says nothing; figure 20 of RFC 7520 is signed by PS384.
    assert {comment for _, comment in refused} == {"emptyPayload", "Figure20"}


@pytest.mark.parametrize("more", ["=", "==", "\n", " ", ".", "A"])
def test_a_token_has_one_text(more: str) -> None:
    group = next(each for each in GROUPS if is_ours(each))
    good = next(each["jws"] for each in group["tests"] if taken(each["jws"], group["public"]))
    head, payload, signature = good.split(".")

    for text in (good + more, f"{head}{more}.{payload}.{signature}", f"{more}{good}"):
        assert not taken(text, group["public"])
