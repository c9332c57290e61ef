"""The vault: numbers go in, tokens come out, and a token is good for what it was made for."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from msgspec.structs import replace

from tests.dying import dying
from tongbao.infra.crypto import Keyring, sealing_key_of
from tongbao.infra.db import Db
from tongbao.infra.kms.file import FileKms
from tongbao.infra.kms.model import Owner, SealingKeyDestroyed
from tongbao.infra.kms.sealing_keys import SealingKeys, destroy
from tongbao.kernel.card_numbers import is_luhn, scheme_of, sights
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.vault import cards, tokens, use_keys
from tongbao.parties.vault.model import (
    Card,
    CardExpired,
    CardKnown,
    CardNotFound,
    CardNumberWrong,
    KeysNotForToken,
    Number,
    Token,
    TokenControls,
    TokenLifeWrong,
    TokenNotFound,
    TokenStandsOtherwise,
    TokenState,
    view_card,
    view_token,
)
from tongbao.parties.vault.use_keys import GivenUseKey, Proof, cryptogram
from tongbao.parties.vault.using import UseAsked, UseRefused, use_token

PAN, OTHER_PAN = "6222021234567890128", "4929420573595709"
SHOP, OTHER_SHOP = Owner(UUID(int=1), Mode.SANDBOX), Owner(UUID(int=2), Mode.SANDBOX)
LIVE = Owner(UUID(int=1), Mode.LIVE)
YUAN = Money(100, "CNY")


class Vault:
    """A vault on a database, and what a merchant does with it."""

    def __init__(self, db: Db) -> None:
        self.db = db
        self.keys = SealingKeys(FileKms(Keyring([b"k" * 32]), None))

    async def save(self, number: str = PAN, owner: Owner = SHOP, expiry: str = "4912") -> Card:
        async with self.db.begin("shop") as tx:
            return await cards.save_card(tx, self.keys, owner, Number(number, expiry))

    async def token(
        self, card: Card, *, kind: str = "card_on_file", active: bool = True, **controls: object
    ) -> Token:
        async with self.db.begin("shop") as tx:
            until = tx.now + timedelta(days=30)
            owner = Owner(card.merchant_id, card.mode)
            held = await cards.locked_card(tx, owner, card.id)
            made = await tokens.request_token(
                tx, held, TokenControls(**controls), token_id=new_id(), kind=kind, expires_at=until
            )
            if active:
                made, _ = await tokens.move_token(tx, owner, made.id, "activate", assurance="13")
        return made

    async def move(self, token: Token, what: str, owner: Owner = SHOP) -> Token:
        async with self.db.begin("shop") as tx:
            return (await tokens.move_token(tx, owner, token.id, what))[0]

    async def give_key(self, token: Token, uses: int = 5, refill_at: int = 1) -> GivenUseKey:
        async with self.db.begin("phone") as tx:
            return await use_keys.give_use_key(
                tx, self.keys, SHOP, token.id, uses_max=uses, refill_at=refill_at
            )

    async def use(
        self, token: Token, money: Money = YUAN, owner: Owner = SHOP, **more: object
    ) -> Number | UseRefused:
        asked = UseAsked(
            merchant_id=owner.merchant_id,
            mode=owner.mode,
            number=token.number,
            reference=new_id().hex,
            channel="cards",
            pay_mode="card",
            money=money,
        )
        return await use_token(self.db, self.keys, replace(asked, **more))

    async def now(self, token: Token) -> Token:
        return (await tokens.token_of(self.db, SHOP, token.id))[0]

    async def told(self, kind: str = "card_token.updated") -> list[str]:
        rows = await self.db.fetch(
            "select body->'object'->>'status' as status from event where type = $1 order by at, id",
            (kind,),
        )
        return [row["status"] for row in rows]


@pytest.fixture
def vault(db: Db) -> Vault:
    return Vault(db)


def proof(given: GivenUseKey, token: Token, counter: int, money: Money = YUAN) -> Proof:
    secret = bytes.fromhex(given.secret.reveal())
    return Proof(given.key.number, counter, cryptogram(secret, token.number, counter, money))


async def test_a_number_is_in_the_vault_alone_and_sealed_there(vault: Vault) -> None:
    card = await vault.save()
    assert await cards.number_of(vault.db, vault.keys, card) == Number(PAN, "4912")
    assert (card.bin, card.last4, card.scheme) == (PAN[:6], PAN[-4:], "unionpay")
    assert PAN[6:-4] not in repr(view_card(card)) + repr(card) + repr(Number(PAN, "4912"))
    tables = await vault.db.fetch(
        "select table_schema || '.' || table_name as name from information_schema.tables"
        " where table_schema in ('public', 'vault') and table_type = 'BASE TABLE'",
        (),
    )
    for table in tables:
        found = await vault.db.fetch(
            f"select count(*) as found from {table['name']} t where t::text like $1"
            " or t::text like $2",
            (f"%{PAN}%", f"%{PAN.encode().hex()}%"),
        )
        assert found[0]["found"] == 0, table["name"]


async def test_the_same_number_is_the_same_card_and_nobody_elses(vault: Vault) -> None:
    card = await vault.save()
    again = await vault.save(expiry="5001")
    assert again.id == card.id
    assert (await cards.number_of(vault.db, vault.keys, again)).expiry == "5001"
    others = [await vault.save(owner=owner) for owner in (OTHER_SHOP, LIVE)]
    assert len({card.id, *(each.id for each in others)}) == 3
    assert len({card.fingerprint, *(each.fingerprint for each in others)}) == 3
    assert {card.par, *(each.par for each in others)} == {card.par}
    assert len(card.par) == 29
    assert (await vault.save(OTHER_PAN)).par != card.par
    with pytest.raises(CardNotFound):
        await cards.card_of(vault.db, SHOP, others[0].id)


async def test_two_who_save_a_card_at_once_save_one(vault: Vault) -> None:
    both = await asyncio.gather(*(vault.save() for _ in range(4)))
    assert len({each.id for each in both}) == 1


@pytest.mark.parametrize(
    ("number", "expiry", "refused"),
    [
        (PAN[:-1] + "9", "4912", CardNumberWrong),
        ("9900010000000004", "4912", CardNumberWrong),
        (PAN, "2001", CardExpired),
        (PAN, "4913", CardExpired),
    ],
)
async def test_what_is_no_card_is_not_kept(
    vault: Vault, number: str, expiry: str, refused: type[Exception]
) -> None:
    with pytest.raises(refused):
        await vault.save(number, expiry=expiry)


async def test_a_token_stands_for_its_card(vault: Vault) -> None:
    card = await vault.save()
    token = await vault.token(card)
    assert (len(token.number), is_luhn(token.number)) == (16, True)
    assert scheme_of(token.number) is None
    assert list(sights(token.number)) == [], "a token is no card number, and no scan finds one"
    assert token.requestor == (await vault.token(card)).requestor
    assert (len(token.requestor), token.assurance) == (11, "13")
    assert view_token(token, card).payment_account_reference == card.par
    assert await vault.use(token) == Number(PAN, "4912")
    used = await vault.now(token)
    assert (used.uses, used.amount_used) == (1, 100)


@pytest.mark.parametrize(
    ("controls", "more", "code"),
    [
        ({"amount_each_max": 99}, {}, "token_amount"),
        ({"amount_max": 99}, {}, "token_sum"),
        ({"pay_modes": ["qr"]}, {}, "token_mode"),
        ({"channels": ["unionpay"]}, {}, "token_channel"),
        ({"currency": "USD"}, {}, "token_currency"),
        ({}, {"number": "9900010000000004"}, "token_unknown"),
        ({}, {"merchant_id": OTHER_SHOP.merchant_id}, "token_unknown"),
        ({}, {"mode": Mode.LIVE}, "token_unknown"),
    ],
)
async def test_a_token_is_worth_nothing_outside_its_domain(
    vault: Vault, controls: dict[str, object], more: dict[str, object], code: str
) -> None:
    token = await vault.token(await vault.save(), **controls)
    assert await vault.use(token, **more) == UseRefused(code)
    assert (await vault.now(token)).uses == 0


async def test_limits_hold_exactly_when_many_come_at_once(vault: Vault) -> None:
    token = await vault.token(await vault.save(), uses_max=5, amount_max=400)
    ends = await asyncio.gather(*(vault.use(token) for _ in range(12)))
    assert sum(isinstance(each, Number) for each in ends) == 4
    used = await vault.now(token)
    assert (used.uses, used.amount_used) == (4, 400)
    assert await vault.use(token, Money(1, "CNY")) == UseRefused("token_sum")
    with pytest.raises(asyncpg.CheckViolationError):  # the table says so too
        await vault.db.execute("update vault.token set amount_used = amount_used + 1", ())


async def test_the_same_number_at_the_host_is_the_same_use(vault: Vault) -> None:
    token = await vault.token(await vault.save(), uses_max=1)
    for _ in range(3):
        assert isinstance(await vault.use(token, reference="one"), Number)
    assert await vault.use(token, Money(99, "CNY"), reference="one") == UseRefused("token_used")
    assert await vault.use(token, reference="two") == UseRefused("token_uses")


async def test_who_dies_before_the_use_is_counted_has_used_nothing(vault: Vault) -> None:
    token = await vault.token(await vault.save(), uses_max=1)
    with dying("vault.before_use_commit"):
        await vault.use(token, reference="one")
    assert (await vault.now(token)).uses == 0
    assert isinstance(await vault.use(token, reference="one"), Number)


async def test_a_token_lives_as_its_states_say_and_each_is_told(vault: Vault) -> None:
    card = await vault.save()
    token = await vault.token(card, active=False)
    assert await vault.use(token) == UseRefused("token_not_active")
    for what, state in (
        ("activate", "active"),
        ("activate", "active"),  # a repeat is not told
        ("suspend", "suspended"),
        ("resume", "active"),
        ("suspend", "suspended"),
    ):
        assert (await vault.move(token, what)).state.value == state
    assert await vault.use(token) == UseRefused("token_not_active")
    fresh = await vault.token(card, active=False)
    with pytest.raises(TokenStandsOtherwise):
        await vault.move(fresh, "suspend")
    assert (await vault.move(token, "delete")).state is TokenState.DELETED
    for what in ("activate", "resume", "suspend"):
        with pytest.raises(TokenStandsOtherwise):
            await vault.move(token, what)
    for owner in (OTHER_SHOP, LIVE):
        with pytest.raises(TokenNotFound):
            await vault.move(token, "delete", owner)
    assert await vault.told() == [
        *("requested", "active", "suspended", "active", "suspended"),
        *("requested", "deleted"),
    ]


async def test_a_token_ends_with_its_time(vault: Vault) -> None:
    token = await vault.token(await vault.save())
    vault.db.clock.offset += timedelta(days=31)
    assert await vault.use(token) == UseRefused("token_expired")
    card = await vault.save()
    for days in (-1, 0, 6 * 365):
        async with vault.db.begin("shop") as tx:
            with pytest.raises(TokenLifeWrong):
                await tokens.request_token(
                    tx,
                    card,
                    TokenControls(),
                    token_id=new_id(),
                    kind="card_on_file",
                    expires_at=tx.now + timedelta(days=days),
                )


async def test_another_number_for_a_token_has_the_limits_of_the_first(vault: Vault) -> None:
    card = await vault.save()
    old = await vault.token(card, uses_max=2)
    await vault.use(old)
    async with vault.db.begin("shop") as tx:
        made, _ = await tokens.replace_token(tx, SHOP, old.id, new_token_id=new_id())
    assert (made.state, made.uses, made.assurance) == (TokenState.ACTIVE, 1, "13")
    assert made.number != old.number
    gone = await vault.now(old)
    assert (gone.state, gone.replaced_by) == (TokenState.REPLACED, made.id)
    assert await vault.use(old) == UseRefused("token_not_active")
    assert isinstance(await vault.use(made), Number)
    assert await vault.use(made) == UseRefused("token_uses")


async def test_a_new_card_in_the_old_ones_place_keeps_tokens_and_reference(vault: Vault) -> None:
    card = await vault.save()
    token = await vault.token(card)
    async with vault.db.begin("shop") as tx:
        fresh = await cards.reissue_card(tx, vault.keys, SHOP, card.id, Number(OTHER_PAN, "5012"))
    assert (fresh.par, fresh.last4) == (card.par, OTHER_PAN[-4:])
    assert await vault.use(token) == Number(OTHER_PAN, "5012")
    again = await vault.save(PAN)
    assert again.id != card.id
    async with vault.db.begin("shop") as tx:
        with pytest.raises(CardKnown):
            await cards.reissue_card(tx, vault.keys, SHOP, card.id, Number(PAN, "5012"))


async def test_a_deleted_card_is_forgotten_with_its_tokens(vault: Vault) -> None:
    card = await vault.save()
    token = await vault.token(card)
    async with vault.db.begin("shop") as tx:
        for _ in range(2):
            gone = await cards.delete_card(tx, SHOP, card.id)
    assert (gone.state, gone.sealed) == ("deleted", None)
    assert await vault.use(token) == UseRefused("token_not_active")
    with pytest.raises(CardNotFound):
        await cards.number_of(vault.db, vault.keys, gone)
    assert (await vault.save()).id != card.id


async def test_a_destroyed_sealing_key_takes_the_numbers_of_its_month_with_it(vault: Vault) -> None:
    card = await vault.save()
    async with vault.db.begin("two people") as tx:
        await destroy(tx, sealing_key_of(card.sealed), because="the merchant left")
    with pytest.raises(SealingKeyDestroyed):
        await cards.number_of(vault.db, vault.keys, card)
    assert isinstance(await vault.use(await vault.token(await vault.save(OTHER_PAN))), Number)


async def test_a_devices_token_pays_by_cryptogram_and_each_pays_once(vault: Vault) -> None:
    token = await vault.token(await vault.save(), kind="device")
    assert await vault.use(token) == UseRefused("token_needs_cryptogram")
    given = await vault.give_key(token, uses=3, refill_at=1)
    assert isinstance(await vault.use(token, proof=proof(given, token, 1)), Number)
    assert await vault.use(token, proof=proof(given, token, 1)) == UseRefused("token_replayed")
    for wrong in (
        proof(given, token, 2, Money(99, "CNY")),  # made for another amount
        replace(proof(given, token, 2), counter=3),
        replace(proof(given, token, 2), cryptogram="00" * 16),
    ):
        assert await vault.use(token, proof=wrong) == UseRefused("token_cryptogram")
    unknown = replace(proof(given, token, 2), key_number=9)
    assert await vault.use(token, proof=unknown) == UseRefused("token_key_over")
    assert await vault.told("card_token.key_short") == []
    assert isinstance(await vault.use(token, proof=proof(given, token, 5)), Number)
    assert await vault.told("card_token.key_short") == ["active"]
    assert await vault.use(token, proof=proof(given, token, 4)) == UseRefused("token_replayed")
    assert isinstance(await vault.use(token, proof=proof(given, token, 6)), Number)
    assert await vault.use(token, proof=proof(given, token, 7)) == UseRefused("token_key_over")
    assert await vault.told("card_token.key_short") == ["active"]


async def test_one_cryptogram_sent_many_times_at_once_pays_once(vault: Vault) -> None:
    token = await vault.token(await vault.save(), kind="device")
    given = await vault.give_key(token)
    said = proof(given, token, 1)
    ends = await asyncio.gather(*(vault.use(token, proof=said) for _ in range(6)))
    assert sum(isinstance(each, Number) for each in ends) == 1
    assert (await vault.now(token)).uses == 1


async def test_a_key_overlaps_with_its_successor_and_ends_with_the_next(vault: Vault) -> None:
    token = await vault.token(await vault.save(), kind="device")
    first, second = await vault.give_key(token), await vault.give_key(token)
    assert isinstance(await vault.use(token, proof=proof(first, token, 1)), Number)
    await vault.give_key(token)
    assert await vault.use(token, proof=proof(first, token, 2)) == UseRefused("token_key_over")
    assert isinstance(await vault.use(token, proof=proof(second, token, 1)), Number)
    vault.db.clock.offset += timedelta(days=8)
    assert await vault.use(token, proof=proof(second, token, 2)) == UseRefused("token_key_over")
    await vault.move(token, "suspend")
    with pytest.raises(KeysNotForToken):
        await vault.give_key(token)


async def test_a_role_for_the_vault_reads_nothing_else_and_others_read_nothing_of_it(
    db: Db,
) -> None:
    reader = await db.fetch(
        "select has_schema_privilege('pg_read_server_files', 'vault', 'usage') as may", ()
    )
    assert reader[0]["may"] is False
    grants = await db.fetch(
        "select grantee, table_name from information_schema.role_table_grants"
        " where table_schema = 'vault' and grantee <> current_user",
        (),
    )
    assert [dict(each) for each in grants] == []


def test_no_column_of_the_vault_has_room_for_a_security_code() -> None:
    """Not after authorisation, not even encrypted: PCI DSS 4.0.1 requirement 3.3.1."""
    folder = Path(__file__).parents[2] / "tongbao" / "infra" / "migrations"
    for path in folder.glob("*.sql"):
        text = path.read_text().lower()
        for name in ("cvn", "cvv", "cvc", "security_code", "track2", "track_2", "pin_block"):
            assert f" {name}" not in text, path.name
