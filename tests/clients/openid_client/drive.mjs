// Drives the open bank with openid-client, a certified OAuth 2 client; runs in its own folder.
//
// Usage: node drive.mjs FOLDER_WITH_NODE_MODULES
// Reads one line {"issuer", "client_id", "jwk", "kid", "redirect_uri", "details", "signed"}, prints one line
// {"url"} with where to send the person, reads one line {"back"} with where they were sent back to,
// and prints {"accounts", "refreshed", "revoked"}. Nothing in the client is bent: it discovers the
// server, pushes the request, checks iss, state and PKCE, and makes the DPoP proofs itself. With
// "signed" the request is an object that it signs (JAR), and the answer one that it verifies (JARM).

import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const require = createRequire(join(resolve(process.argv[2]), 'package.json'));
const client = await import(pathToFileURL(require.resolve('openid-client')));
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const next = async () => JSON.parse((await lines.next()).value);
const tell = fact => console.log(JSON.stringify(fact));

const given = await next();
const key = await crypto.subtle.importKey(
  'jwk', given.jwk, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']);
const config = await client.discovery(
  new URL(given.issuer),
  given.client_id,
  { use_mtls_endpoint_aliases: false, authorization_signed_response_alg: 'PS256' },
  client.PrivateKeyJwt({ key, kid: given.kid }),
  { algorithm: 'oauth2', execute: [client.allowInsecureRequests] },
);
if (given.signed) client.useJwtResponseMode(config);
const pair = await client.randomDPoPKeyPair('ES256');
const DPoP = client.getDPoPHandle(config, pair);
const verifier = client.randomPKCECodeVerifier();
const state = client.randomState();
const wish = {
  redirect_uri: given.redirect_uri,
  code_challenge: await client.calculatePKCECodeChallenge(verifier),
  code_challenge_method: 'S256',
  state,
  authorization_details: JSON.stringify([given.details]),
};
const signedWish = async () => (
  await client.buildAuthorizationUrlWithJAR(config, wish, { key, kid: given.kid })).searchParams;
const url = await client.buildAuthorizationUrlWithPAR(
  config, given.signed ? await signedWish() : wish, { DPoP });
tell({ url: url.href });

const { back } = await next();
const tokens = await client.authorizationCodeGrant(
  config, new URL(back), { pkceCodeVerifier: verifier, expectedState: state }, undefined, { DPoP });
const ask = async token => {
  const reply = await client.fetchProtectedResource(
    config, token, new URL('/open_bank/accounts', given.issuer), 'GET', undefined, undefined,
    { DPoP });
  return reply.json();
};
const accounts = await ask(tokens.access_token);
const again = await client.refreshTokenGrant(config, tokens.refresh_token, undefined, { DPoP });
const refreshed = await ask(again.access_token);
await client.tokenRevocation(config, tokens.refresh_token);
const revoked = await ask(again.access_token).then(() => 'served', error => error.cause?.[0]?.parameters?.error ?? String(error));
tell({ token_type: tokens.token_type, accounts, refreshed, revoked });
process.exit(0);
