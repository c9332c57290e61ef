"""Code plates: what a customer finds behind the code that stands on a counter."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.stage import Stage
from tests.surfaces import cashing
from tests.surfaces.cashing import ALIPAY_APP, METHOD, WECHAT_APP, Till, page_of, scene
from tests.surfaces.visitors import reader
from tongbao.kernel.codecs import emv_qr_merchant as emv
from tongbao.kernel.money import Money
from tongbao.payments.checkouts.checkouts import prune_abandoned
from tongbao.payments.plates.model import EmvAsked, PlateCurrencyUnknown, emv_text
from tongbao.surfaces.cashier.desk import ACTS_PER_MINUTE, Throttle
from tongbao.surfaces.page_kit.qr import draw

till = cashing.till


async def test_a_plate_opens_a_checkout_for_what_the_customer_enters(
    stage: Stage, till: Till
) -> None:
    plate = await till.plate()
    async with reader(stage) as one:
        page = await one.get(page_of(plate))
        assert "测试商店" in page.text
        for wrong in ("", "0", "-1", "1.234", "1e3", "abc", "99999999999999999999"):
            reply = await one.post(page_of(plate), {"amount": wrong})
            assert reply.status_code == 422, wrong
            assert 'role="alert"' in reply.text
        page = await one.follow(await one.post(page_of(plate), {"amount": "1,234.50"}))
        assert scene(page) == "choose"
        assert "1,234.50" in page.text
        path = str(one.page.url.path)
        page = await one.follow(await one.post(f"{path}/method", {"method": "wechat_pay.qr"}))
        assert scene(page) == "scan"
    listed = await till.said(
        "GET", f"/v1/payments?metadata=%7B%22plate_id%22%3A%22{plate['id']}%22%7D"
    )
    assert [each["amount"] for each in listed["items"]] == [123_450]


async def test_a_plate_offers_what_opens_in_the_app_that_scanned_it(
    stage: Stage, till: Till
) -> None:
    plate = await till.plate(amount=500)
    for app, offered in ((ALIPAY_APP, ["alipay.h5"]), (WECHAT_APP, [])):
        async with reader(stage) as one:
            one.client.headers["user-agent"] = app
            await one.get(page_of(plate))
            page = await one.follow(await one.post(page_of(plate), {}))
            assert METHOD.findall(page.text) == offered, app
            if offered:
                path = f"{page.url.path}/method"
                page = await one.follow(await one.post(path, {"method": offered[0]}))
                assert "alipay/gateway.do" in page.text + page.headers.get("location", "")


async def test_looking_at_a_plate_writes_nothing(stage: Stage, till: Till) -> None:
    plate = await till.plate()
    async with reader(stage) as one:
        for _ in range(3):
            await one.get(page_of(plate))
    assert (await till.said("GET", "/v1/checkouts"))["items"] == []


async def test_what_nobody_tried_to_pay_at_a_plate_is_forgotten(stage: Stage, till: Till) -> None:
    plate, own = await till.plate(), await till.open()
    async with reader(stage) as one:
        await one.post(page_of(plate), {"amount": "1"})
        tried = await one.follow(await one.post(page_of(plate), {"amount": "2"}))
        await one.post(f"{tried.url.path}/method", {"method": "alipay.qr"})
    await prune_abandoned(stage.db)
    assert len((await till.said("GET", "/v1/checkouts"))["items"]) == 3
    stage.db.clock.offset += timedelta(days=1, minutes=31)
    await prune_abandoned(stage.db)
    left = (await till.said("GET", "/v1/checkouts"))["items"]
    assert {each["amount"] for each in left} == {200, own["amount"]}


async def test_a_fixed_plate_takes_its_own_amount_only(stage: Stage, till: Till) -> None:
    plate = await till.plate(amount=500)
    async with reader(stage) as one:
        await one.follow(await one.post(page_of(plate), {"amount": "0.01"}))
    [checkout] = (await till.said("GET", "/v1/checkouts"))["items"]
    assert checkout["amount"] == 500
    assert checkout["plate_id"] == plate["id"]


async def test_a_plates_image_is_its_address_and_its_emv_text_checks_out(
    stage: Stage, till: Till
) -> None:
    plate = await till.plate(
        emv={"category": "5814", "name": "CORNER TEA", "city": "HANGZHOU"}, amount=500
    )
    async with reader(stage) as one:
        image = await one.get(f"{page_of(plate)}/code.svg")
        other = await one.get(f"{page_of(plate)}/code.svg?as=emv")
    assert image.headers["content-type"] == "image/svg+xml"
    assert draw(plate["url"]).path in image.text
    assert draw(plate["emv_text"]).path in other.text
    code = emv.decode(plate["emv_text"])
    assert code.value(emv.AMOUNT) == "5.00"
    assert code.name_in("zh") == "测试商店"
    account = code.template("26")
    assert account is not None
    assert account["01"] == plate["url"].rpartition("/")[2]


def test_an_emv_text_is_in_a_currency_that_has_a_number_here() -> None:
    asked = EmvAsked("5814", "TEA", "HANGZHOU")
    where = {"token": "x" * 22, "public_url": "https://pay.example.cn", "name": "TEA"}
    text = emv_text(asked, Money(100, "HKD"), "HKD", **where)
    assert "5303344" in text
    assert "0014cn.example.pay" in text
    with pytest.raises(PlateCurrencyUnknown):
        emv_text(asked, None, "JPY", **where)


async def test_a_revoked_plate_opens_nothing_ever_again(stage: Stage, till: Till) -> None:
    plate = await till.plate()
    revoked = await till.said("POST", f"/v1/plates/{plate['id']}/revoke")
    again = await till.said("POST", f"/v1/plates/{plate['id']}/revoke")
    assert revoked["status"] == again["status"] == "revoked"
    assert revoked["revoked_at"] == again["revoked_at"]
    async with reader(stage) as one:
        for path in (page_of(plate), f"{page_of(plate)}/code.svg"):
            assert (await one.get(path)).status_code == 404
        assert (await one.post(page_of(plate), {"amount": "1"})).status_code == 404
    assert [each["id"] for each in (await till.said("GET", "/v1/plates"))["items"]] == [plate["id"]]


async def test_a_plate_is_not_flooded(
    stage: Stage, till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tongbao.payments.plates.plates.OPENED_PER_MINUTE_MAX", 2)
    plate = await till.plate()
    async with reader(stage) as one:
        for _ in range(2):
            assert (await one.post(page_of(plate), {"amount": "1"})).status_code == 303
        assert (await one.post(page_of(plate), {"amount": "1"})).status_code == 429


async def test_one_address_cannot_press_buttons_without_end(stage: Stage, till: Till) -> None:
    plate = await till.plate()
    async with reader(stage) as one:
        answers = [
            (await one.post(page_of(plate), {"amount": ""})).status_code
            for _ in range(ACTS_PER_MINUTE + 1)
        ]
        assert answers[-1] == 429
        assert set(answers[:-1]) == {422}
        assert (await one.get(page_of(plate))).status_code == 200


def test_a_pace_is_a_sliding_one_and_forgets_who_was_quiet() -> None:
    now = [1000.0]
    pace = Throttle(2, 10.0, clock=lambda: now[0])
    assert [pace.lets_through("a") for _ in range(3)] == [True, True, False]
    assert pace.lets_through("b")
    now[0] += 10
    assert not pace.lets_through("a"), "what was just before counts too"
    now[0] += 6
    assert pace.lets_through("a")
    now[0] += 100
    assert [pace.lets_through("a") for _ in range(3)] == [True, True, False]
    for number in range(Throttle.KEYS_MAX + 10):
        pace.lets_through(str(number))
    assert len(pace._counts) == Throttle.KEYS_MAX
