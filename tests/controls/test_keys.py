"""Master keys under dual control: nobody knows one, nobody makes one alone."""

from __future__ import annotations

import os
from pathlib import Path

import asyncpg
import pytest
from msgspec.structs import replace

from tests.dying import dying
from tests.infra import softhsm
from tongbao.controls.approvals.approvals import ApplyApproval, approve, run_apply
from tongbao.controls.approvals.model import (
    Approval,
    Approvals,
    ApprovalState,
    OwnProposal,
    acts_of,
)
from tongbao.controls.approvals.queries import approval_with_id, changes_of
from tongbao.controls.keys import ceremonies as keys
from tongbao.controls.keys.model import (
    CeremonyNotFound,
    CeremonyOver,
    CeremonyUnderWay,
    ComponentMalformed,
    ComponentsAlike,
    ComponentsNotTaken,
    SameCustodian,
    check_value,
    combined,
    read_component,
)
from tongbao.infra.audit import entries_of_subject
from tongbao.infra.crypto import Keyring, Place, sealing_key_of
from tongbao.infra.db import Db
from tongbao.infra.kms.file import FileKms
from tongbao.infra.kms.model import Owner, SealingKeyDestroyed
from tongbao.infra.kms.port import Kms
from tongbao.infra.kms.rewrapping import RewrapSealingKeys, run_rewrap
from tongbao.infra.kms.sealing_keys import SealingKeys
from tongbao.kernel.ids import derived_id, new_id, show

MAY = frozenset({"deployment_act"})
PLACE = Place("card", "number_sealed", "1")


class House:
    """A key file, its keeper, and two people who decide."""

    def __init__(self, db: Db, folder: Path) -> None:
        self.db, self.path = db, folder / "kek"
        self.keyring = Keyring.from_file(self.path)
        self.kms: Kms = FileKms(self.keyring, self.path)
        self.sealing_keys = SealingKeys(self.kms)
        self.wrapped = 0

    @property
    def desk(self) -> Approvals:
        return Approvals(self.db, acts_of(*keys.bound_acts(self.db, self.kms, self.wrap_lines)))

    def wrap_lines(self) -> int:
        self.wrapped += 1
        return 1

    async def propose(self, reason: str = "two years are over") -> Approval:
        async with self.db.begin("opr_one") as tx:
            return await keys.propose_rotation(tx, self.kms, reason=reason, may=MAY)

    async def agree(self, asked: Approval) -> None:
        async with self.db.begin("opr_two") as tx:
            await approve(tx, self.desk.acts, asked.id, digest=asked.digest.hex(), may=MAY)

    async def apply(self, asked: Approval) -> Approval:
        await run_apply(self.desk, ApplyApproval(asked.id), None)
        return await approval_with_id(self.db, asked.id)

    async def opened(self) -> tuple[Approval, object]:
        asked = await self.propose()
        await self.agree(asked)
        return await self.apply(asked), derived_id(asked.id, "ceremony")

    async def enter(self, ceremony: object, component: str, who: str) -> tuple[object, str]:
        async with self.db.begin(who) as tx:
            return await keys.enter_component(tx, self.kms, self.keyring, ceremony, component)


@pytest.fixture
def house(db: Db, tmp_path: Path) -> House:
    return House(db, tmp_path)


def component() -> str:
    return os.urandom(32).hex()


async def test_two_custodians_make_a_key_that_neither_knows(house: House) -> None:
    before = house.keyring.seal("channel.secrets", b"secret", b"place")
    async with house.db.begin("test") as tx:
        sealed = await house.sealing_keys.seal(tx, Owner(), "vault.card", b"4000", PLACE)
    applied, ceremony = await house.opened()
    assert applied.state is ApprovalState.APPLIED
    one, other = component(), component()
    half, check = await house.enter(ceremony, f" {one[:32]} {one[32:]} ", "opr_anne")
    assert (half.state, half.first_custodian, check) == (
        "open",
        "opr_anne",
        check_value(bytes.fromhex(one)),
    )
    assert bytes.fromhex(one) not in half.component_sealed
    done, _ = await house.enter(ceremony, other, "opr_bert")
    made = combined(bytes.fromhex(one), bytes.fromhex(other))
    assert (done.state, done.component_sealed) == ("complete", None)
    assert done.master_key == Keyring([made]).primary_id.hex() == house.kms.master_keys()[0].id
    assert keys.is_certified(house.kms, done)
    forged = done.certificate.replace("opr_anne", "opr_carl")
    assert not keys.is_certified(house.kms, replace(done, certificate=forged))
    assert house.keyring.open("channel.secrets", before, b"place") == b"secret"
    waiting = await house.db.fetch("select args from task where type = 'kms.rewrap'", ())
    assert len(waiting) == 1
    await run_rewrap(house.db, house.sealing_keys, RewrapSealingKeys(once=True), None)
    alone = SealingKeys(FileKms(Keyring([made]), None))
    assert await alone.open(house.db, Owner(), "vault.card", sealed, PLACE) == b"4000"
    async with house.db.begin("test") as tx:
        noted = await keys.noted_keys(tx, house.kms)
    assert [(each.version, each.ceremony_id) for each in noted] == [(2, ceremony), (1, None)]
    said = await entries_of_subject(house.db, show("cer", ceremony))
    assert [each.action for each in said] == [
        "key_ceremony.opened",
        "key_ceremony.first_component",
        "key_ceremony.complete",
    ]
    everything = str(await house.db.fetch("select * from key_ceremony", ())) + str(said)
    for text in (one, other, made.hex()):
        assert text not in everything


async def test_nobody_is_both_custodians_and_nobody_approves_their_own(house: House) -> None:
    asked = await house.propose()
    async with house.db.begin("opr_one") as tx:
        with pytest.raises(OwnProposal):
            await approve(tx, house.desk.acts, asked.id, digest=asked.digest.hex(), may=MAY)
    await house.agree(asked)
    await house.apply(asked)
    ceremony = derived_id(asked.id, "ceremony")
    one = component()
    await house.enter(ceremony, one, "opr_anne")
    with pytest.raises(SameCustodian):
        await house.enter(ceremony, component(), "opr_anne")
    with pytest.raises(ComponentsAlike):
        await house.enter(ceremony, one, "opr_bert")
    assert len(house.kms.master_keys()) == 1
    with pytest.raises(asyncpg.CheckViolationError):  # the table says so too
        await house.db.execute("update key_ceremony set second_custodian = first_custodian", ())


async def test_who_dies_before_the_record_is_kept_enters_the_same_component_again(
    house: House,
) -> None:
    _, ceremony = await house.opened()
    one, other = component(), component()
    await house.enter(ceremony, one, "opr_anne")
    with dying("keys.before_ceremony_commit"):
        await house.enter(ceremony, other, "opr_bert")
    done, _ = await house.enter(ceremony, other, "opr_bert")
    assert done.state == "complete"
    assert len(house.path.read_text().split()) == 2


async def test_one_ceremony_at_a_time_and_none_twice(house: House) -> None:
    _, first = await house.opened()
    again, _ = await house.opened()
    assert again.state is ApprovalState.FAILED
    assert CeremonyUnderWay.code in str(again)
    await house.enter(first, component(), "opr_anne")
    async with house.db.begin("test") as tx:
        ended = await keys.abandon(tx, first)
    assert (ended.state, ended.component_sealed) == ("abandoned", None)
    for refused, ceremony in ((CeremonyOver, first), (CeremonyNotFound, new_id())):
        with pytest.raises(refused):
            await house.enter(ceremony, component(), "opr_bert")
    assert [each.state for each in await keys.ceremonies(house.db)] == ["abandoned"]
    assert len(house.kms.master_keys()) == 1


@pytest.mark.parametrize("text", ["", "zz", "00" * 32, "ab" * 32, "12" * 31, "1" * 63])
def test_a_component_is_32_random_bytes(text: str) -> None:
    with pytest.raises(ComponentMalformed):
        read_component(text)


async def test_a_sealing_key_goes_when_two_people_say_so(house: House) -> None:
    async with house.db.begin("test") as tx:
        sealed = await house.sealing_keys.seal(tx, Owner(), "vault.card", b"4000", PLACE)
    key_id = sealing_key_of(sealed)
    async with house.db.begin("opr_one") as tx:
        asked = await keys.propose_destruction(tx, key_id, reason="asked to be forgotten", may=MAY)
    changes = await changes_of(house.desk, asked)
    assert changes[-1].after == "lost for ever"
    await house.agree(asked)
    assert await house.sealing_keys.open(house.db, Owner(), "vault.card", sealed, PLACE)
    assert (await house.apply(asked)).state is ApprovalState.APPLIED
    with pytest.raises(SealingKeyDestroyed):
        await house.sealing_keys.open(house.db, Owner(), "vault.card", sealed, PLACE)
    async with house.db.begin("opr_one") as tx:
        with pytest.raises(SealingKeyDestroyed):
            await keys.propose_destruction(tx, key_id, reason="once more", may=MAY)


async def test_a_module_makes_its_key_itself_and_once(house: House) -> None:
    house.kms = softhsm.token()
    house.sealing_keys = SealingKeys(house.kms)
    first = house.kms.master_keys()[0]
    asked = await house.propose()
    await house.agree(asked)
    with dying("keys.before_rotation_commit"):
        await house.apply(asked)
    assert (await house.apply(asked)).state is ApprovalState.APPLIED
    newest, before, *_ = house.kms.master_keys()
    assert (newest.version, before) == (first.version + 1, first)
    assert house.wrapped == 2
    with pytest.raises(ComponentsNotTaken):
        await house.enter(new_id(), component(), "opr_anne")
