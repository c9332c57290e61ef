from collections.abc import Iterator

import pytest

from tests.sandbox.inbox import Inbox
from tests.sandbox.wechat_merchant import WechatMerchant
from tests.sandboxes import start_sandbox
from tongbao_sandbox.launch import RunningSandbox


@pytest.fixture(scope="module")
def sandbox_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        running.post("settings", hold_s=1.0)
        yield running


@pytest.fixture
def sandbox(sandbox_process: RunningSandbox) -> Iterator[RunningSandbox]:
    """One process per module; no fault survives a test."""
    yield sandbox_process
    sandbox_process.delete("faults")
    sandbox_process.settle()


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    """Where callbacks arrive."""
    with Inbox() as listening:
        yield listening


@pytest.fixture
def merchant(sandbox: RunningSandbox, inbox: Inbox) -> Iterator[WechatMerchant]:
    with WechatMerchant(sandbox, inbox.url) as shop:
        yield shop
