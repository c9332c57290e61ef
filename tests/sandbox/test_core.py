"""The core of the sandbox: memory, clock, faults, delivery of callbacks, the control API."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.sandbox.inbox import Inbox
from tests.sandbox.wechat_merchant import WechatMerchant
from tongbao_sandbox.faults import Faults, UnknownFault
from tongbao_sandbox.launch import RunningSandbox, start_sandbox
from tongbao_sandbox.state import State


@pytest.fixture
def faults(tmp_path: Path) -> Iterator[Faults]:
    state = State(tmp_path / "state.sqlite3")
    yield Faults(state)
    state.close()


def callbacks(sandbox: RunningSandbox, number: str) -> list[dict[str, Any]]:
    return list(sandbox.get("callbacks", number=number))


def test_a_fault_for_one_number_goes_before_one_for_any_and_each_is_used_up(faults: Faults) -> None:
    faults.add(channel="wechat", on="pay", fault="slow:3", times=2)
    faults.add(channel="wechat", on="pay", fault="reset", number="n1")
    assert faults.take("wechat", "pay", "n1").name == "reset"
    assert faults.take("alipay", "pay", "n1").name == ""
    assert faults.take("wechat", "query", "n1").name == ""
    assert [faults.take("wechat", "pay", "n1").argument for _ in range(3)] == ["3", "3", ""]


def test_a_fault_that_lasts_for_ever_is_never_used_up(faults: Faults) -> None:
    faults.add(channel="wechat", on="pay", fault="http_429", times=-1)
    assert {faults.take("wechat", "pay", "x").name for _ in range(5)} == {"http_429"}
    faults.clear()
    assert faults.take("wechat", "pay", "x").name == ""


def test_a_fault_nobody_acts_on_is_refused(faults: Faults) -> None:
    with pytest.raises(UnknownFault):
        faults.add(channel="wechat", on="pay", fault="lightning")


def test_half_a_request_never_stays(tmp_path: Path) -> None:
    state = State(tmp_path / "state.sqlite3")
    block = state.begin()
    block.__enter__()
    state.set_setting("half", 1)
    failure = RuntimeError()
    assert not block.__exit__(RuntimeError, failure, None)
    assert state.setting("half", "absent") == "absent"
    state.close()


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    with start_sandbox(tmp_path) as first, WechatMerchant(first, "") as shop:
        number = shop.number()
        body = shop.native_body(number) | {"notify_url": "https://shop.example/notify"}
        placed = shop.call("POST", "/v3/pay/transactions/native", body)
        first.advance(3600)
        before, keys = first.get("clock")["offset_s"], first.credentials
    with start_sandbox(tmp_path) as second, WechatMerchant(second, "") as shop:
        assert second.credentials == keys
        assert second.get("clock")["offset_s"] == before
        assert shop.query(number).json["trade_state"] == "NOTPAY"
        assert shop.call("POST", "/v3/pay/transactions/native", body).json == placed.json


def test_the_keys_of_the_institution_are_not_among_the_credentials(
    sandbox: RunningSandbox,
) -> None:
    assert "platform_private_key_pem" not in sandbox.credentials["wechat"]
    for name in ("credentials.json", "institution.json"):
        assert (sandbox.data_dir / name).stat().st_mode & 0o077 == 0


def test_it_stops_when_its_parent_is_gone(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "from tongbao_sandbox.launch import start_sandbox\n"
        "running = start_sandbox(pathlib.Path(sys.argv[1]))\n"
        "print(running.process.pid, flush=True)\n"
        "import os; os._exit(0)\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    pid = int(child.stdout)
    for _ in range(200):
        if not Path(f"/proc/{pid}/cmdline").exists() or not _is_running(pid):
            return
        time.sleep(0.05)
    os.kill(pid, 9)
    pytest.fail("the sandbox outlived its parent")


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_unknown_control_routes_and_nonsense_are_refused(sandbox: RunningSandbox) -> None:
    control = f"{sandbox.url}/control"
    assert httpx2.get(f"{control}/nowhere").status_code == 404
    assert httpx2.post(f"{control}/clock", content=b"[").status_code == 400
    assert httpx2.post(f"{control}/clock", json={"advance_s": -1}).status_code == 400
    assert httpx2.post(f"{control}/faults", json={"channel": "nobody"}).status_code == 400
    assert httpx2.get(f"{sandbox.url}/elsewhere").status_code == 404


def test_the_clock_only_goes_forward_and_says_how_far(sandbox: RunningSandbox) -> None:
    before = sandbox.get("clock")["offset_s"]
    sandbox.advance(90)
    assert sandbox.get("clock")["offset_s"] == before + 90


def test_absolute_form_request_targets_are_understood(sandbox: RunningSandbox) -> None:
    host, _, port = sandbox.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as wire:
        wire.sendall(
            f"GET {sandbox.url}/control/clock HTTP/1.1\r\nHost: {host}:{port}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"offset_s" in answer


def test_an_oversize_body_is_refused(sandbox: RunningSandbox) -> None:
    answer = httpx2.post(f"{sandbox.url}/wechat/v3/certificates", content=b"x" * (11 << 20))
    assert answer.status_code == 413


def test_requests_are_logged_with_how_they_ended(
    sandbox: RunningSandbox, merchant: WechatMerchant
) -> None:
    number = merchant.number()
    merchant.query(number)
    newest = sandbox.get("requests", last=1)[0]
    assert number in newest["target"]
    assert (newest["method"], newest["status"], newest["ending"]) == ("GET", 404, "answer")


# Delivery ---------------------------------------------------------------------------------


def test_a_refused_callback_comes_again_by_the_plan_until_it_is_accepted(
    sandbox: RunningSandbox, merchant: WechatMerchant, inbox: Inbox
) -> None:
    inbox.answers = [(500, b'{"code":"FAIL"}'), (404, b"")]
    number = merchant.paid()
    assert [letter.path for letter in inbox.letters] == ["/notify"]
    sandbox.advance(14)
    assert len(inbox.letters) == 1
    sandbox.advance(2)
    sandbox.advance(15)
    [callback] = callbacks(sandbox, number)
    assert callback["state"] == "delivered"
    assert [attempt["status"] for attempt in callback["attempts"]] == [500, 404, 204]
    assert callback["attempts"][0]["reply"] == '{"code":"FAIL"}'
    sandbox.advance(7 * 86400)
    assert len(inbox.letters) == 3


def test_after_fifteen_resends_it_gives_up(
    sandbox: RunningSandbox, merchant: WechatMerchant, inbox: Inbox
) -> None:
    inbox.otherwise = (500, b"")
    number = merchant.paid()
    sandbox.advance(24 * 3600 + 4 * 60 + 1)
    [callback] = callbacks(sandbox, number)
    assert callback["state"] == "gave_up"
    assert len(inbox.letters) == callback["tries"] == 16


def test_a_merchant_who_cannot_be_reached_is_a_failed_try(
    sandbox: RunningSandbox, merchant: WechatMerchant
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        merchant.notify_url = f"http://127.0.0.1:{closed.getsockname()[1]}/notify"
    number = merchant.paid()
    [callback] = callbacks(sandbox, number)
    assert callback["state"] == "waiting"
    assert callback["attempts"][0]["status"] is None
    assert "ConnectError" in callback["attempts"][0]["error"]


def test_a_lost_callback_never_arrives_and_can_be_sent_again(
    sandbox: RunningSandbox, merchant: WechatMerchant, inbox: Inbox
) -> None:
    sandbox.fault("wechat", "callback", "lost")
    number = merchant.paid()
    sandbox.advance(2 * 86400)
    [callback] = callbacks(sandbox, number)
    assert (callback["state"], inbox.letters) == ("lost", [])
    sandbox.post(f"callbacks/{callback['id']}/resend")
    sandbox.settle()
    assert len(inbox.letters) == 1
    assert callbacks(sandbox, number)[0]["state"] == "delivered"


def test_a_callback_lost_twice_arrives_at_the_third_try(
    sandbox: RunningSandbox, merchant: WechatMerchant, inbox: Inbox
) -> None:
    sandbox.fault("wechat", "callback", "lost:2")
    merchant.paid()
    assert not inbox.letters
    sandbox.advance(31)
    assert len(inbox.letters) == 1


def test_a_doubled_callback_comes_twice_with_the_same_id(
    sandbox: RunningSandbox, merchant: WechatMerchant, inbox: Inbox
) -> None:
    sandbox.fault("wechat", "callback", "doubled")
    merchant.paid()
    first, second = (merchant.opened(letter) for letter in inbox.letters)
    assert first == second | {"resource": first["resource"]}
    assert first["id"] == second["id"]


def test_a_late_callback_waits_for_the_virtual_clock(
    sandbox: RunningSandbox, merchant: WechatMerchant, inbox: Inbox
) -> None:
    sandbox.fault("wechat", "callback", "late:600")
    merchant.paid()
    sandbox.advance(590)
    assert not inbox.letters
    sandbox.advance(11)
    assert len(inbox.letters) == 1


def test_a_forged_callback_comes_besides_the_true_one(
    sandbox: RunningSandbox, merchant: WechatMerchant, inbox: Inbox
) -> None:
    sandbox.fault("wechat", "callback", "forged")
    number = merchant.paid()
    verdicts = sorted(merchant.verifies(one.headers, one.body) for one in inbox.letters)
    assert verdicts == [False, True]
    assert {callback["variant"] for callback in callbacks(sandbox, number)} == {"forged", "genuine"}


def test_reordered_callbacks_overtake_each_other(
    sandbox: RunningSandbox, merchant: WechatMerchant, inbox: Inbox
) -> None:
    sandbox.fault("wechat", "callback", "reordered")
    first, second = merchant.paid(), merchant.paid()
    numbers = [merchant.opened(letter)["resource"]["out_trade_no"] for letter in inbox.letters]
    assert numbers == [second, first]


def test_a_held_back_callback_goes_at_last_even_alone(
    sandbox: RunningSandbox, merchant: WechatMerchant, inbox: Inbox
) -> None:
    sandbox.fault("wechat", "callback", "reordered")
    merchant.paid()
    assert not inbox.letters
    sandbox.advance(61)
    assert len(inbox.letters) == 1


def test_faults_can_be_listed_and_taken_back(sandbox: RunningSandbox) -> None:
    fault_id = sandbox.fault("wechat", "pay", "slow:2", number="x", times=-1)
    [fault] = sandbox.get("faults")
    assert (fault["id"], fault["name"], fault["argument"], fault["left"]) == (
        fault_id,
        "slow",
        "2",
        -1,
    )
    sandbox.delete(f"faults/{fault_id}")
    assert sandbox.get("faults") == []
    with pytest.raises(ValueError, match="no fault"):
        sandbox.fault("wechat", "pay", "drop_row")


def test_bill_faults_have_their_own_address(sandbox: RunningSandbox) -> None:
    sandbox.post("bill/faults", channel="wechat", fault="drop_row", number="n")
    assert [fault["on"] for fault in sandbox.get("faults")] == ["bill"]


def test_the_ready_line_is_one_json_object(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tongbao_sandbox", "--data-dir", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        process.terminate()
        assert process.wait(timeout=10) == 0
    assert ready["url"].startswith("http://127.0.0.1:")
    assert json.loads(Path(ready["credentials"]).read_bytes())["wechat"]["mchid"]
