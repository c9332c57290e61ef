-- What a merchant's programs asked and what they were told, for whoever writes them. Lines are kept
-- as long as the rule in force says. What was sent and answered is kept in the sandbox, masked.

create table request_line (
    merchant_id  uuid not null,
    mode         text not null check (mode in ('live', 'sandbox')),
    id           uuid not null,               -- of the request, as its answer's X-Request-Id says
    key_id       uuid not null,
    at           timestamptz not null,
    method       text not null check (method <> ''),
    route        text not null check (route <> ''),   -- the path with names for its ids
    status       int not null check (status between 100 and 599),
    code         text,                        -- of the refusal
    duration_us  bigint not null check (duration_us >= 0),
    target       text,                        -- path and query, as they were sent
    body         text,
    answer       text,
    is_whole     boolean not null,            -- nothing of what was sent is masked or left out
    primary key (merchant_id, mode, id),
    check (mode = 'sandbox' or (target is null and body is null and answer is null))
);
create index request_line_by_age on request_line (mode, at);

-- How many days lines are kept, from when on.
create table request_log_term (
    mode        text not null check (mode in ('live', 'sandbox')),
    valid_from  date not null,
    days        int not null check (days between 1 and 3660),
    because     text not null check (because <> ''),
    primary key (mode, valid_from)
);
insert into request_log_term (mode, valid_from, days, because) values
    ('live', '2017-06-01', 184, '网络安全法（2016）第二十一条（三）：网络日志留存不少于六个月'),
    ('sandbox', '2017-06-01', 30, 'of use while a program is written, and about nobody real');
