import type * as Own from "./person.js";
import type { EventView, Operations } from "./types.js";

export type * from "./types.js";

export const VERSION: string;

/** The platform understood and said no; nothing was done. */
export class Refused extends Error {
  readonly status: number;
  readonly code: string;
  readonly advice: string;
  readonly param?: string;
  readonly requestId?: string;
  /** An earlier try of the same call was not answered, so that one may have been done. */
  readonly afterUnanswered: boolean;
}

/** Nobody said what became of the call: repeat it with the key, or look the thing up. */
export class Unanswered extends Error {
  readonly idempotencyKey?: string;
}

/** The webhook is not the platform's, or too old. */
export class WebhookInvalid extends Error {}

/** What makes a call that changes something safe to repeat, by whoever calls it. */
export interface Once {
  /** The key of an earlier call of the same content; without one a new key is made. */
  idempotencyKey?: string;
  /** Is given the key before anything is sent, to keep it where it survives a crash. */
  remember?: (key: string) => void | Promise<void>;
  /** Of a body that is a file, as `image/png`. */
  contentType?: string;
}

type Name = keyof Operations;
type Taken<K extends Name> = Omit<Operations[K], "reply" | "query"> &
  (Operations[K] extends { query: infer Q } ? { query?: Q } : unknown);
type Reply<K extends Name> = Operations[K]["reply"];
type Item<K extends Name> = Reply<K> extends { items: Array<infer T> } ? T : never;
type Given<K extends Name> = {} extends Taken<K> ? [taken?: Taken<K> & Once] : [taken: Taken<K> & Once];

interface Common {
  keyId: string;
  /** For each try. */
  timeoutMs?: number;
  /** Counts the first one. */
  triesMax?: number;
  /** Of advice. */
  language?: "en" | "zh";
  /** Waits between tries. */
  pause?: (ms: number) => Promise<void>;
}

/** Whose requests: of a key with its secret, or of one made with the public half of a key pair. */
export type Options = Common &
  (
    | { secret: string; privateKey?: undefined }
    /** A PEM without a password: Ed25519, EC P-256 or RSA (RFC 9421). */
    | { privateKey: string; secret?: undefined }
  );

/** Signs requests with a private key of your own (RFC 9421): Ed25519, EC P-256 or RSA, as PEM. */
export class MessageSigner {
  constructor(keyId: string, privateKey: string);
  /** Return the headers that sign a request, each good for one try within five minutes. */
  headers(
    method: string,
    url: string,
    body: string | Uint8Array,
    headers?: Record<string, string>,
    fixed?: { at?: number; nonce?: string },
  ): Record<string, string>;
}

/** One platform and one API key. */
export class Tongbao {
  constructor(url: string, options: Options);
  /** Do one operation of the API; what changes something happens once, over every retry. */
  call<K extends Name>(operation: K, ...given: Given<K>): Promise<Reply<K>>;
  /** Yield every item of a list, fetching page after page. */
  pages<K extends Name>(operation: K, ...given: Given<K>): AsyncGenerator<Item<K>, void, void>;
}

/** Return the Authorization header of one try; `target` is path and query as they are sent. */
export function authorization(
  keyId: string,
  secret: string,
  request: { method: string; target: string; body: string; at?: number; nonce?: string },
): string;

/** Return the event of a webhook, verified on its raw bytes (Standard Webhooks 1.0). */
export function verifyWebhook(
  headers: Headers | Record<string, string>,
  body: string | Uint8Array,
  keys: { publicKeys?: string[]; secrets?: string[]; now?: number },
): EventView;

type OwnName = keyof Own.Operations;
type OwnTaken<K extends OwnName> = Omit<Own.Operations[K], "reply" | "query"> &
  (Own.Operations[K] extends { query: infer Q } ? { query?: Q } : unknown);

/** Whose phone: a PEM of its own key, Ed25519 or EC on P-256, and the token of an earlier login. */
export interface PersonOptions {
  privateKey: string;
  name?: string;
  mode?: "live" | "sandbox";
  session?: string;
  timeoutMs?: number;
}

/** One phone and whoever is logged in on it; `tongbao-sdk/person` has the types of what it asks. */
export class Person {
  constructor(url: string, options: PersonOptions);
  /** The token of the session, to be kept as a secret; it opens nothing without the phone's key. */
  session?: string;
  /** Have a code sent to an address; the answer is the same whether anybody has it. */
  askCode(contact: string, purpose: Own.AskCode["purpose"]): Promise<Own.CodeView>;
  /** Make an account with an address that a code has proved, and log in. */
  register(
    contact: string,
    password: string,
    proof: { codeId: string; code: string; consents?: Own.Register["consents"] },
  ): Promise<Own.SessionView>;
  /** Log in; from a phone that is not bound yet with a second proof. */
  logIn(contact: string, password: string, second?: Own.LogIn["second"]): Promise<Own.SessionView>;
  /** End the session. */
  logOut(): Promise<void>;
  /** Do one operation of a person's own, as "GET /v1/me/e_accounts"; nothing is repeated. */
  call<K extends OwnName>(
    operation: K,
    ...given: {} extends OwnTaken<K> ? [taken?: OwnTaken<K>] : [taken: OwnTaken<K>]
  ): Promise<Own.Operations[K]["reply"]>;
}
