-- Pictures of complaints: what the customer sent along, fetched into the document store, and which
-- of the merchant's files go with an answer.

-- `channel_ref` is the channel's id of it, or where it lies there. `refused`: it is no picture, or
-- lies where nothing is fetched from. The content is a blob.
create table complaint_image (
    book          int         not null,
    id            uuid        not null,
    complaint_id  uuid        not null,
    merchant_id   uuid        not null,
    mode          text        not null check (mode in ('live', 'sandbox')),
    channel_ref   text        not null check (length(channel_ref) between 1 and 512),
    message_ref   text        not null,
    state         text        not null check (state in ('wanted', 'kept', 'gone', 'refused')),
    media_type    text        check (media_type in ('image/jpeg', 'image/png')),
    size          int         check (size between 1 and 5242880),
    sha256        text        check (sha256 ~ '^[0-9a-f]{64}$'),
    blob          text,
    seen_at       timestamptz not null,
    ended_at      timestamptz,
    primary key (book, id),
    unique (book, complaint_id, channel_ref),
    check ((state = 'wanted') = (ended_at is null)),
    check ((state = 'kept') = (blob is not null)),
    check (num_nulls(media_type, size, sha256, blob) in (0, 4))
);

-- `channel_ref` comes when the channel has it; only then is the answer sent.
create table complaint_reply_image (
    book          int         not null,
    reply_id      uuid        not null,
    place         int         not null check (place between 0 and 3),
    file_id       uuid        not null,
    channel_ref   text        check (length(channel_ref) between 1 and 512),
    primary key (book, reply_id, place)
);
