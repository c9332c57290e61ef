-- API keys whose requests are signed with a key of the merchant's own (RFC 9421). The secret that
-- such a key has as well encrypts fields, and signs nothing.

alter table api_key
    add column algorithm text not null default 'hmac-sha256'
        check (algorithm in ('hmac-sha256', 'ed25519', 'ecdsa-p256-sha256', 'rsa-pss-sha512',
                             'sm2-sm3')),
    add column public_key bytea check (length(public_key) <= 1024),
    add check ((algorithm = 'hmac-sha256') = (public_key is null));
