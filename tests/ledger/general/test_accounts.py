"""The chart of the general ledger: complete, and which tables do not load."""

from __future__ import annotations

from importlib import resources

import pytest

from tongbao.ledger.general.accounts import (
    GL_ACCOUNTS,
    NUMBER_OF,
    GlChartInvalid,
    load_accounts,
)
from tongbao.ledger.rules.chart import CHART

TABLE = resources.files("tongbao.ledger.general").joinpath("gl_accounts.toml").read_text("utf-8")


def test_every_kind_of_account_is_summed_up_in_exactly_one_account():
    assert NUMBER_OF.keys() == CHART.keys()
    assert sum(len(account.kinds) for account in GL_ACCOUNTS.values()) == len(CHART)


def test_every_account_speaks_both_languages():
    assert all(
        account.en.isascii() and not account.zh.isascii() for account in GL_ACCOUNTS.values()
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('["1002"]', '["bank"]'),
        ('["1002"]', '["10.02"]'),
        ('kinds = ["bank"]', "kinds = []"),
        ('kinds = ["bank"]', 'kinds = ["gold"]'),
        ('kinds = ["bank"]', 'kinds = ["bank", "wallet"]'),
        ('kinds = ["bank"]', 'kind = ["bank"]'),
        ('zh = "银行存款"', 'zh = ""'),
        ('class = "asset"\nkinds = ["bank"]', 'class = "liability"\nkinds = ["bank"]'),
        ('class = "asset"', 'class = "wealth"'),
        (TABLE[TABLE.index('["6421"]') :], ""),
        ('["1002"]', "1002"),
    ],
)
def test_a_table_that_contradicts_itself_does_not_load(old, new):
    assert old in TABLE
    with pytest.raises(GlChartInvalid):
        load_accounts(TABLE.replace(old, new, 1))
