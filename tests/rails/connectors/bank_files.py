"""Bank transfers by files in the contract suite; what is its own is in test_bank_files.py."""

from __future__ import annotations

from tests.rails.connector import Connector
from tongbao.rails.channels.bank_files.client import BankFiles
from tongbao.rails.channels.bank_files.secrets import BankFilesSecrets

CONNECTOR = Connector(
    name="bank_files",
    make=BankFiles,
    secrets=BankFilesSecrets(
        "/nonexistent/bank", "通宝支付有限公司", "6200000000000000088", "102290000011"
    ),
    built=frozenset({"pay", "query", "close", "transfer"}),
)
