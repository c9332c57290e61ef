// Drives the open bank with openid-client as a client of mutual TLS (RFC 8705); runs in its own folder.
//
// Usage: node mutual_tls.mjs FOLDER_WITH_NODE_MODULES
// Reads one line {"issuer", "client_id", "cert", "key", "ca", "redirect_uri", "details"}, prints
// {"url"}, reads {"back"}, and prints {"token_type", "accounts", "refreshed", "revoked"}. The
// client finds the endpoints for certificates by itself, in the server's metadata; only the
// connections are made here, because fetch() has no place for a certificate.

import { createRequire } from 'node:module';
import { request } from 'node:https';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const require = createRequire(join(resolve(process.argv[2]), 'package.json'));
const client = await import(pathToFileURL(require.resolve('openid-client')));
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const next = async () => JSON.parse((await lines.next()).value);
const tell = fact => console.log(JSON.stringify(fact));
const given = await next();

const overTls = (url, { method, headers, body }) => new Promise((done, failed) => {
  const { cert, key, ca } = given;
  const sent = body === undefined || body === null ? '' : body.toString();
  const length = sent ? { 'content-length': Buffer.byteLength(sent) } : {};
  const asked = request(url, { method, headers: { ...headers, ...length }, cert, key, ca, agent: false }, reply => {
    const parts = [];
    reply.on('data', part => parts.push(part));
    reply.on('end', () => done(new Response(Buffer.concat(parts), { status: reply.statusCode, headers: reply.headers })));
  });
  asked.on('error', failed);
  asked.end(sent);
});
const fetching = (url, options) => url.startsWith('https:') ? overTls(url, options) : fetch(url, options);

const config = await client.discovery(
  new URL(given.issuer),
  given.client_id,
  { use_mtls_endpoint_aliases: true },
  client.TlsClientAuth(),
  { algorithm: 'oauth2', execute: [client.allowInsecureRequests], [client.customFetch]: fetching },
);
const origin = new URL(config.serverMetadata().mtls_endpoint_aliases.token_endpoint).origin;
const verifier = client.randomPKCECodeVerifier();
const state = client.randomState();
const url = await client.buildAuthorizationUrlWithPAR(config, {
  redirect_uri: given.redirect_uri,
  code_challenge: await client.calculatePKCECodeChallenge(verifier),
  code_challenge_method: 'S256',
  state,
  authorization_details: JSON.stringify([given.details]),
});
tell({ url: url.href });

const { back } = await next();
const tokens = await client.authorizationCodeGrant(
  config, new URL(back), { pkceCodeVerifier: verifier, expectedState: state });
const ask = async token => {
  const reply = await client.fetchProtectedResource(
    config, token, new URL('/open_bank/accounts', origin), 'GET');
  return reply.json();
};
const accounts = await ask(tokens.access_token);
const again = await client.refreshTokenGrant(config, tokens.refresh_token);
const refreshed = await ask(again.access_token);
await client.tokenRevocation(config, tokens.refresh_token);
const revoked = await ask(again.access_token).then(
  () => 'served', error => error.cause?.[0]?.parameters?.error ?? String(error));
tell({ token_type: tokens.token_type, accounts, refreshed, revoked });
process.exit(0);
