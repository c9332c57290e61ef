-- The version of the API that a key's requests are in unless they say another. Keys of before speak
-- the newest, as they did.

alter table api_key
    add column api_version text check (api_version ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$');
