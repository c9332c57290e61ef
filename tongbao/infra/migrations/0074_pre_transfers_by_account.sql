-- What an account's transfers took out on a day, for matching with its own bill. Only a licensed
-- firm has transfers.
do $$
begin
    if (select licence from deployment where id = 1) = 'aggregator' then
        return;
    end if;

    create index transfer_item_by_account on transfer_item (account_id, ended_at)
        where state = 'succeeded';
end
$$;
