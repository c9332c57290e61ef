-- Money between a person's own wallets and their electronic accounts, as orders of the account:
-- `payee_id` is then the wallet, on whichever side it is.
alter table e_account_order drop constraint e_account_order_kind_check;
alter table e_account_order add constraint e_account_order_kind_check
    check (kind in ('top_up', 'withdrawal', 'transfer', 'from_wallet', 'to_wallet'));
alter table e_account_order drop constraint e_account_order_check;
alter table e_account_order add constraint e_account_order_names_the_other_side
    check ((kind in ('transfer', 'from_wallet', 'to_wallet')) = (payee_id is not null));

-- Wrong numbers and months of virtual cards, counted on a row that every try locks: of the number
-- that was given, whether there is such a card or not, and of whoever gave it.
create table virtual_card_guess (
    book     int not null references ledger_book (book),
    kind     text not null check (kind in ('card', 'requestor')),
    subject  text not null check (length(subject) between 1 and 64),
    day      date not null,
    wrong    int not null check (wrong >= 0),
    primary key (book, kind, subject)
);
create index virtual_card_guess_by_day on virtual_card_guess (day);
insert into opening_rule (kind, name, valid_from, figure, instrument) values
    ('virtual_card', 'guesses_per_card_day_max', '2026-01-01', 5, '本平台设定：防范卡号与有效期试探'),
    ('virtual_card', 'guesses_per_requestor_day_max', '2026-01-01', 20,
        '本平台设定：防范卡号与有效期试探');

-- What somebody has signed with a bank card of theirs, whichever book its merchant is in.
create index agreement_by_card on agreement (payer) where channel = 'cards';
