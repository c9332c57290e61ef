"""Servers that say so share a port; one that does not say so keeps it for itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from tongbao.infra.settings import Settings, load_settings
from tongbao.surfaces.cli.serve import AddressNotFree, listen


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"TONGBAO_DATA_DIR": str(tmp_path), "TONGBAO_PORT": "0"})


def test_servers_share_a_port(settings: Settings) -> None:
    with listen(settings, is_shared=True) as first:
        same = replace(settings, port=first.getsockname()[1])

        with listen(same, is_shared=True) as second:
            assert second.getsockname() == first.getsockname()


def test_a_port_is_shared_by_those_only_who_say_so(settings: Settings) -> None:
    with listen(settings) as first:
        same = replace(settings, port=first.getsockname()[1])

        with pytest.raises(AddressNotFree):
            listen(same, is_shared=True)
