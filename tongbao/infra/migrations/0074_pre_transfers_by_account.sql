-- What an account's transfers took out on a day, for matching with its own bill.
create index transfer_item_by_account on transfer_item (account_id, ended_at)
    where state = 'succeeded';
