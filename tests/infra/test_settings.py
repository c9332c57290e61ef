"""Settings: where they come from, what is refused, what is never printed."""

from __future__ import annotations

import pickle
from pathlib import Path

import msgspec
import pytest

from tongbao.infra.settings import (
    SETTINGS,
    Secret,
    SettingInvalid,
    Settings,
    SettingsFileUnreadable,
    SettingUnknown,
    load_settings,
)
from tongbao.kernel.licence import Licence

DSN = "postgresql://tongbao:hunter2@db.example/tongbao"


def toml(folder: Path, text: str) -> Path:
    path = folder / "tongbao.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_anything_the_defaults_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings({})
    assert settings.licence is Licence.AGGREGATOR  # the firm that may do least
    assert settings.dsn is None
    assert not settings.test_clock
    assert settings.kek_file == settings.data_dir / "kek"
    assert settings.public_url == "http://127.0.0.1:8000"


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = toml(tmp_path, 'port = 9000\nlog_level = "debug"\nlicence = "bank"\n')
    settings = load_settings({"TONGBAO_PORT": "9001", "HOME": "/x"}, path)
    assert (settings.port, settings.log_level) == (9001, "debug")
    assert settings.licence is Licence.BANK
    assert settings.public_url == "http://127.0.0.1:9001"


def test_the_environment_may_name_the_file(tmp_path: Path) -> None:
    path = toml(tmp_path, "test_clock = true\n")
    assert load_settings({"TONGBAO_CONFIG": str(path)}).test_clock


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    path = toml(tmp_path, "port = 9000\n")
    assert load_settings({"TONGBAO_PORT": ""}, path).port == 9000


def test_an_unknown_variable_is_refused_by_name_with_the_nearest() -> None:
    with pytest.raises(SettingUnknown) as refused:
        load_settings({"TONGBAO_PROT": "1"})
    assert refused.value.facts == {"name": "TONGBAO_PROT", "nearest": "TONGBAO_PORT"}


def test_an_unknown_key_in_the_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingUnknown) as refused:
        load_settings({}, toml(tmp_path, "licens = 'bank'\n"))
    assert refused.value.facts == {"name": "licens", "nearest": "licence"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TONGBAO_PORT", "70000"),
        ("TONGBAO_PORT", "http"),
        ("TONGBAO_LICENCE", "casino"),
        ("TONGBAO_TEST_CLOCK", "perhaps"),
        ("TONGBAO_PUBLIC_URL", "pay.example"),
        ("TONGBAO_PUBLIC_URL", "https://pay.example/path"),
        ("TONGBAO_WORKER_CONCURRENCY", "0"),
    ],
)
def test_a_value_that_cannot_be_is_refused_without_repeating_it(variable: str, value: str) -> None:
    with pytest.raises(SettingInvalid) as refused:
        load_settings({variable: value})
    assert refused.value.facts["variable"] == variable
    assert value not in str(refused.value)


@pytest.mark.parametrize("text", ["port = ", "\udcff"])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsFileUnreadable):
        load_settings({}, path)


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsFileUnreadable):
        load_settings({}, tmp_path / "none.toml")


def test_a_secret_is_printed_nowhere() -> None:
    settings = load_settings({"TONGBAO_DSN": DSN})
    assert settings.dsn is not None
    assert settings.dsn.reveal() == DSN
    shown = f"{settings} {settings!r} {settings.masked()} {settings.dsn}"
    assert "hunter2" not in shown
    assert settings.masked()["dsn"] == "********"


def test_a_secret_cannot_be_serialised() -> None:
    with pytest.raises(TypeError):
        msgspec.json.encode(Secret("x"))
    with pytest.raises(TypeError):
        pickle.dumps(Secret("x"))


def test_secrets_compare_by_value() -> None:
    assert Secret("x") == Secret("x")
    assert Secret("x") != Secret("y")
    assert Secret("x") != "x"
    assert len({Secret("x"), Secret("x")}) == 1


def test_every_field_has_a_row_in_the_table() -> None:
    assert [row.name for row in SETTINGS] == list(Settings.__struct_fields__)
    assert all(row.env == f"TONGBAO_{row.name.upper()}" for row in SETTINGS)
    assert all(row.meaning.endswith(".") and row.default for row in SETTINGS)


def test_masked_shows_every_field(tmp_path: Path) -> None:
    shown = load_settings({"TONGBAO_DATA_DIR": str(tmp_path)}).masked()
    assert list(shown) == list(Settings.__struct_fields__)
    assert shown["data_dir"] == str(tmp_path)
