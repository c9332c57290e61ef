-- Partners of the open bank that prove themselves, or hold their tokens, by a TLS certificate.

-- How a partner proves itself (RFC 8705 §2, RFC 7523), and whether its tokens are bound to its
-- certificate instead of a DPoP key (§3). A name is registered where authorities vouch for it.
alter table partner
    add column auth_method text not null default 'private_key_jwt' check
        (auth_method in ('private_key_jwt', 'tls_client_auth', 'self_signed_tls_client_auth')),
    add column name_kind text check
        (name_kind in ('subject_dn', 'san_dns', 'san_uri', 'san_ip', 'san_email')),
    add column certificate_name text check (length(certificate_name) between 1 and 512),
    add column binds_certificate boolean not null default false,
    add check ((name_kind is null) = (certificate_name is null)),
    add check ((auth_method = 'tls_client_auth') = (name_kind is not null));

-- A token is bound to one of the two: the thumbprint of a DPoP key, or that of a certificate.
alter table partner_token
    alter column jkt drop not null,
    add column x5t text check (length(x5t) = 43),
    add check ((jkt is null) <> (x5t is null));
alter table partner_access
    alter column jkt drop not null,
    add column x5t text check (length(x5t) = 43),
    add check ((jkt is null) <> (x5t is null));
