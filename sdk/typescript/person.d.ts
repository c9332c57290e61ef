// Made by `make docs` from the API's own description; edit that.

/** A certificate first, then those that lead to its anchor, in DER and base64. */
export type AddCertificate = { challenge_id: string; chain: Array<string>; signature: string };

/** Add an address that a code has proved. */
export type AddContact = { contact: string; code_id: string; code: string };

/** What the browser or the phone returned for a new passkey, in JSON form. */
export type AddPasskey = { challenge_id: string; name: string; response: Record<string, unknown> };

/** What somebody agrees to: a kind of text, in this version. */
export type Agreed = { kind: string; version: number };

/** Where an agreement stands; the last two are ends. */
export type AgreementState = "active" | "created" | "ended" | "ending" | "failed" | "pending" | "unknown";

/** Have a code sent to an address, to register, to log in from a new phone, or to recover. */
export type AskCode = { contact: string; purpose: "log_in" | "recover" | "register"; device: DeviceIs; language?: "en" | "zh"; mode?: Mode };

/** Have a code for this act sent to the phone or the mail address. */
export type AskCodeAt = { to?: "mail" | "phone" };

/** Have a code sent to a further address of one's own. */
export type AskContactCode = { contact: string };

/** Ask what a passkey, a token or a certificate has to answer to confirm. */
export type AskFor = { method: "certificate" | "ocra" | "passkey" };

/** Ask what a passkey has to sign to log in. */
export type AskPasskey = { device: DeviceIs };

/** Have one register asked. */
export type AskRegister = { source: string };

/** A card that its bank has verified, and the code that confirms it from the card's phone. */
export type AskedBankCardView = { object: "bank_card_binding"; card: BankCardView; code_id: string; expires_at: string };

/** What an account held at a moment. */
export type BalanceView = { object: "e_account_balance"; account_id: string; at: string; balance: number; currency: string };

/** One of one's own bank cards; never more of its number than first six and last four. */
export type BankCardView = { id: string; object: "bank_card"; issuer: string; issuer_name: string; brand: string; kind: "credit" | "debit"; bin: string; last4: string; phone_masked: string; status: BoundState; is_default: boolean; created_at: string; bound_at: string | null };

/** How many orders of a batch stand so, and what they come to. */
export type BatchCount = { status: OrderState; orders: number; amount: number };

/** One transfer of a batch. */
export type BatchItem = { amount: number; payee: string };

/** Bind a card of one's own. There is no field for a security code: it is not taken. */
export type BindBankCard = { number: string; expiry: string; phone: string };

/** How a try to bind stands. */
export type BoundState = "asked" | "bound" | "refused" | "unbound" | "unclear" | "verified";

/** A certificate's signature over the act, in base64. */
export type ByCertificate = { type: "certificate"; challenge_id: string; signature: string };

/** The next code of a counter. */
export type ByHotp = { type: "hotp"; code: string };

/** A code that was sent to the person's phone or mail address. */
export type ByMessageCode = { type: "message_code"; code_id: string; code: string };

/** A token's response to a challenge about the act. */
export type ByOcra = { type: "ocra"; challenge_id: string; response: string };

/** What the browser or the phone returned for a passkey, in JSON form. */
export type ByPasskey = { type: "passkey"; challenge_id: string; response: Record<string, unknown> };

/** The password. */
export type ByPassword = { type: "password"; password: string };

/** The code an authenticator app shows now. */
export type ByTotp = { type: "totp"; code: string };

/** Who may take how much from which card, how often, and how that stands. */
export type CardAgreementView = { id: string; object: "card_agreement"; payee: string; display_name: string; currency: string; status: AgreementState; card: string | null; limit_each: number | null; period: Period | null; limit_per_period: number | null; limit_total: number | null; payments_max: number | null; used_total: number; expires_at: string; signed_at: string | null; ended_at: string | null };

/** What a virtual card has paid. Whose card it is, is not told. */
export type CardChargeView = { object: "card_charge"; order_id: string; amount: number; currency: string; paid_at: string };

/** How much a card pays at once, in a day of Shanghai and in all; None is no limit. */
export type CardLimits = { each_max?: number | null; day_max?: number | null; total_max?: number | null };

/** How a virtual card stands. */
export type CardState = "active" | "closed" | "frozen";

/** Take this much from a virtual card. */
export type ChargeCard = { card_number: string; expiry: string; amount: number; request_id: string; currency?: "AED" | "AUD" | "BHD" | "BRL" | "CAD" | "CHF" | "CLP" | "CNY" | "DKK" | "EUR" | "GBP" | "HKD" | "IDR" | "INR" | "JOD" | "JPY" | "KRW" | "KWD" | "KZT" | "MOP" | "MXN" | "MYR" | "NOK" | "NZD" | "OMR" | "PHP" | "RUB" | "SAR" | "SEK" | "SGD" | "THB" | "TND" | "TWD" | "USD" | "VND" | "ZAR" };

/** What a register said, and the level it came to. */
export type CheckView = { source: string; verdict: string | null; real_name_level: number };

/** Whether one wants to hear of money that came in or went out. */
export type ChooseNotices = { money: boolean };

/** Make a wallet one's own by a payment code that it shows at this moment. */
export type ClaimWallet = { payment_code: string };

/** What a merchant's code asks for, and out of which accounts it can be paid. */
export type CodeScanView = { object: "code_scan"; payment_id: string; mode: Mode; payee: string; subject: string; amount: number; currency: string; status: string; expires_at: string; ways: Array<WayView> };

/** What everybody is told who asks for a code, whether anybody has the address or not. */
export type CodeView = { object: "message_code"; code_id: string; expires_at: string };

/** The code that went to the card's phone. */
export type ConfirmBankCard = { code_id: string; code: string };

/** What is to be confirmed, and how far that is. */
export type ConfirmationView = { id: string; object: "confirmation"; kind: string; subject: string; amount: number; currency: string; payee: string; level: number; proved: Array<string>; is_confirmed: boolean; expires_at: string };

/** Withdraw from a kind of text. */
export type ConsentKind = { kind: string };

/** A text in force. */
export type ConsentTextView = { kind: string; version: number; language: "en" | "zh"; title: string; body: string; is_required: boolean; published_at: string };

/** What was agreed to, and until when. */
export type ConsentView = { kind: string; version: number; language: string; given_at: string; withdrawn_at: string | null };

/** An address, masked. */
export type ContactView = { kind: "mail" | "phone"; masked: string };

/** The phone that asks: the public key that its request is signed with, and its name. */
export type DeviceIs = { public_key: string; name: string };

/** One of the person's phones. */
export type DeviceView = { id: string; object: "device"; name: string; bound_at: string; is_this_one: boolean };

/** It is done, or was before. */
export type Done = { done?: boolean };

/** Transfers that were confirmed together, and how far they have come. */
export type EAccountBatchView = { id: string; object: "e_account_batch"; account_id: string; request_id: string; orders: number; amount: number; currency: string; run_at: string; is_over: boolean; progress: Array<BatchCount>; created_at: string };

/** What was ordered of an account, and what became of it. */
export type EAccountOrderView = { id: string; object: "e_account_order"; account_id: string; kind: "from_wallet" | "to_wallet" | "top_up" | "transfer" | "withdrawal"; payee: string | null; card: string | null; amount: number; currency: string; request_id: string; timing: "next_day" | "now" | "scheduled"; run_at: string; status: OrderState; code: string | null; created_at: string; ended_at: string | null };

/** A payment out of an account, with what was given back of it. */
export type EAccountPaymentView = { id: string; object: "e_account_payment"; account_id: string; payee: string; subject: string; amount: number; currency: string; level: number; paid_at: string; refunds: Array<EAccountRefundView> };

/** What was given back, and where it is. */
export type EAccountRefundView = { id: string; object: "e_account_refund"; payment_id: string; account_id: string; amount: number; currency: string; status: string; code: string | null; created_at: string; taken_at: string | null; taken_to: string | null };

/** Whether the account takes part at all; freezes stand beside it. */
export type EAccountState = "active" | "closed" | "dormant" | "opened";

/** One of one's own electronic accounts. */
export type EAccountView = { id: string; object: "e_account"; kind: string; account_class: number; currency: string; status: EAccountState; frozen: "all" | "in" | "none" | "out"; balance: number; available: number; opened_at: string; activated_at: string | null; closed_at: string | null };

/** Enrol a generator of codes. */
export type Enrol = { kind: "hotp" | "ocra" | "totp"; name: string; suite?: string | null };

/** A new generator; its secret is shown this once, and it counts after its first code. */
export type EnrolledView = { id: string; secret: string; uri: string };

/** What became of the account. */
export type ErasedView = { erased: boolean; kept: Array<KeptView> };

/** Everything that is kept of a person, by the domain that keeps it. */
export type ExportView = { domains: Record<string, Array<Record<string, unknown>>> };

/** One way in which this person can prove who they are. */
export type FactorView = { id: string; kind: string; name: string; status: string; created_at: string };

/** The first code of a new generator. */
export type FirstCode = { code: string };

/** Say who one is, as it stands on the resident's card. */
export type GiveIdentity = { name: string; resident_id: string };

/** Who the law says this is, masked. */
export type IdentityView = { name: string; resident_id: string };

/** Issue a card of an account; ``request_id`` makes a repeat harmless. */
export type IssueVirtualCard = { request_id: string; limits?: CardLimits };

/** What is not erased, which law keeps it, and until when. */
export type KeptView = { what: string; because: string; until: string | null };

/** One limit of the law on the person's accounts of this class, and what is left of it. */
export type LimitView = { meter: string; period: "day" | "lifetime" | "moment" | "year"; currency: string; most: number; used: number; left: number; instrument: string };

/** One movement; ``change`` is below zero where money went out. */
export type LineView = { order_id: string; kind: string; change: number; balance_after: number; at: string };

/** Log in; from a phone that is not bound yet with a ``second`` proof besides the password. */
export type LogIn = { contact: string; password: string; device: DeviceIs; second?: ByMessageCode | ByTotp | ByHotp | null; mode?: Mode };

/** Log in by a passkey, which says itself whose it is. */
export type LogInByPasskey = { claim: ByPasskey; device: DeviceIs; mode?: Mode };

/** Which world a key or a row belongs to. */
export type Mode = "live" | "sandbox";

/** This much, in minor units; ``request_id`` makes a repeat harmless. ``card`` is a bank card that is bound. Left out, it is the default one in live mode; in the sandbox the money then comes from and goes to nowhere, at once. */
export type MoveMoney = { amount: number; request_id: string; currency?: "AED" | "AUD" | "BHD" | "BRL" | "CAD" | "CHF" | "CLP" | "CNY" | "DKK" | "EUR" | "GBP" | "HKD" | "IDR" | "INR" | "JOD" | "JPY" | "KRW" | "KWD" | "KZT" | "MOP" | "MXN" | "MYR" | "NOK" | "NZD" | "OMR" | "PHP" | "RUB" | "SAR" | "SEK" | "SGD" | "THB" | "TND" | "TWD" | "USD" | "VND" | "ZAR"; card?: string | null };

/** Move money between an account and a wallet of one's own; ``in`` is into the account. */
export type MoveWithWallet = { wallet: string; direction: "in" | "out"; amount: number; request_id: string; currency?: string; timing?: "next_day" | "now" | "scheduled"; run_at?: string | null };

/** Choose another password. */
export type NewPassword = { password: string };

/** How one hears of one's account; of its safety everybody hears. */
export type NoticesView = { object: "notices"; money: boolean; push_devices: Array<string> };

/** What one let a third party see or do, and how that stands. */
export type OpenConsentView = { id: string; object: "open_consent"; partner: string; kind: string; permissions: Array<string>; amount: number | null; amount_a_day: number | null; currency: string | null; payee: string | null; accounts: number; status: string; created_at: string; expires_at: string | null; ended_at: string | null };

/** Open an account of class 1, 2 or 3. */
export type OpenEAccount = { account_class: number };

/** What became of an order. */
export type OrderState = "cancelled" | "done" | "failed" | "waiting";

/** A wallet that is one's own. */
export type OwnWalletView = { id: string; object: "own_wallet"; holder_name: string; currency: string; is_active: boolean };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_EAccountOrderView = { items: Array<EAccountOrderView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_EAccountPaymentView = { items: Array<EAccountPaymentView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_LineView = { items: Array<LineView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_OpenConsentView = { items: Array<OpenConsentView>; next_cursor?: string | null };

/** What ``navigator.credentials`` is to be given, and the id of the challenge in it. */
export type PasskeyQuestion = { challenge_id: string; options: Record<string, unknown> };

/** How often a limit begins anew, in the business's time zone; weeks begin on Monday. */
export type Period = "day" | "month" | "week" | "year";

/** One's own account. */
export type PersonView = { id: string; object: "person"; status: string; real_name_level: number; contacts: Array<ContactView>; identity: IdentityView | null; registers: Array<string>; created_at: string };

/** Why a request was not done, and what its sender can do about it. */
export type Problem = { type: string; title: string; status: number; code: string; detail: string; advice: string; doc_url: string; request_id: string; param?: string | null; facts?: Record<string, string | number | boolean | null> };

/** What is to be signed or answered, once, within five minutes. */
export type Question = { challenge_id: string; options?: Record<string, unknown> | null; question?: string | null; text?: string | null };

/** Get an account back by its address and by who the law says its person is. */
export type Recover = { contact: string; code_id: string; code: string; name: string; resident_id: string; password: string; device: DeviceIs; mode?: Mode };

/** Make an account with an address that a code has proved. */
export type Register = { contact: string; code_id: string; code: string; password: string; device: DeviceIs; consents?: Array<Agreed>; language?: "en" | "zh"; mode?: Mode };

/** What the app has scanned, as it is. */
export type ScanCode = { code: string };

/** These transfers together, confirmed once: now, at the next midnight, or at a moment. */
export type SendBatch = { items: Array<BatchItem>; request_id: string; currency?: "AED" | "AUD" | "BHD" | "BRL" | "CAD" | "CHF" | "CLP" | "CNY" | "DKK" | "EUR" | "GBP" | "HKD" | "IDR" | "INR" | "JOD" | "JPY" | "KRW" | "KWD" | "KZT" | "MOP" | "MXN" | "MYR" | "NOK" | "NZD" | "OMR" | "PHP" | "RUB" | "SAR" | "SEK" | "SGD" | "THB" | "TND" | "TWD" | "USD" | "VND" | "ZAR"; timing?: "next_day" | "now" | "scheduled"; run_at?: string | null };

/** This much to another account: now, at the next midnight of Shanghai, or at a moment. */
export type SendMoney = { amount: number; payee: string; request_id: string; currency?: "AED" | "AUD" | "BHD" | "BRL" | "CAD" | "CHF" | "CLP" | "CNY" | "DKK" | "EUR" | "GBP" | "HKD" | "IDR" | "INR" | "JOD" | "JPY" | "KRW" | "KWD" | "KZT" | "MOP" | "MXN" | "MYR" | "NOK" | "NZD" | "OMR" | "PHP" | "RUB" | "SAR" | "SEK" | "SGD" | "THB" | "TND" | "TWD" | "USD" | "VND" | "ZAR"; timing?: "next_day" | "now" | "scheduled"; run_at?: string | null };

/** A new session; its token is shown this once. */
export type SessionView = { object: "person_session"; person_id: string; device_id: string; token: string; password_is_due: boolean };

/** Where this phone is reached by push. */
export type SetPushToken = { token: string };

/** Sign what the app has scanned, with a bound card. */
export type SignAgreement = { code: string; card: string };

/** A virtual card of an account; ``number`` and ``expiry`` are there when it was issued only. */
export type VirtualCardView = { id: string; object: "virtual_card"; account_id: string; bin: string; last4: string; status: CardState; number: string | null; expiry: string | null; limits: CardLimits; used: number; uses: number; expires_at: string; created_at: string };

/** One account that might pay; a ``code`` says which rule stands against it, with its facts. */
export type WayView = { account_id: string; kind: string; available: number; currency: string; level: number; code: string | null; facts: Record<string, unknown> };

/** What each operation, by method and path, takes and returns. */
export interface Operations {
  /** Return one's own account, masked. */
  "GET /v1/me": { reply: PersonView };
  /** Return what a scanned agreement would allow; nothing changes by it. */
  "POST /v1/me/agreement_scans": { body: ScanCode; reply: CardAgreementView };
  /** Return what one has signed with bank cards: what stands first, then what has ended. */
  "GET /v1/me/agreements": { reply: Array<CardAgreementView> };
  /** Sign a scanned agreement: its merchant may take money from the card until it is ended. */
  "POST /v1/me/agreements": { body: SignAgreement; reply: CardAgreementView };
  /** End an agreement: nothing is taken under it any more. */
  "POST /v1/me/agreements/{agreement_id}/end": { path: { agreement_id: string }; reply: CardAgreementView };
  /** Enrol a generator of codes; it counts once its first code is right. */
  "POST /v1/me/authenticators": { body: Enrol; reply: EnrolledView };
  /** Put a new generator in force by its first right code. */
  "POST /v1/me/authenticators/{authenticator_id}/confirm": { path: { authenticator_id: string }; body: FirstCode; reply: Done };
  /** Return the cards that are bound, the default one first. */
  "GET /v1/me/bank_cards": { reply: Array<BankCardView> };
  /** Ask the card's bank whether name, id, number and phone belong together; send a code there. */
  "POST /v1/me/bank_cards": { body: BindBankCard; reply: AskedBankCardView };
  /** Return one card, or one try to bind one. */
  "GET /v1/me/bank_cards/{card_id}": { path: { card_id: string }; reply: BankCardView };
  /** Bind a verified card by the code from its phone; the first one is the default card. */
  "POST /v1/me/bank_cards/{card_id}/confirm": { path: { card_id: string }; body: ConfirmBankCard; reply: BankCardView };
  /** Make a card the one that money moves over where none is named. */
  "POST /v1/me/bank_cards/{card_id}/default": { path: { card_id: string }; reply: BankCardView };
  /** Let go of a card; its number is forgotten, and what was signed with it ends. */
  "POST /v1/me/bank_cards/{card_id}/unbind": { path: { card_id: string }; reply: BankCardView };
  /** Bind a certificate whose key has signed the challenge. */
  "POST /v1/me/certificates": { body: AddCertificate; reply: FactorView };
  /** Ask what a certificate's key has to sign to be bound. */
  "POST /v1/me/certificates/challenges": { reply: Question };
  /** Return what a merchant's code asks for, and which of one's accounts may pay it. */
  "POST /v1/me/code_scans": { body: ScanCode; reply: CodeScanView };
  /** Have a code sent to an address; the answer does not tell whether anybody has it. */
  "POST /v1/me/codes": { body: AskCode; reply: CodeView };
  /** Return what is to be confirmed, as it is shown to the person. */
  "GET /v1/me/confirmations/{confirmation_id}": { path: { confirmation_id: string }; reply: ConfirmationView };
  /** Ask what a passkey, a token or a certificate has to answer; the act is in it. */
  "POST /v1/me/confirmations/{confirmation_id}/challenge": { path: { confirmation_id: string }; body: AskFor; reply: Question };
  /** Have a code sent that is good for this act alone; the message says for what. */
  "POST /v1/me/confirmations/{confirmation_id}/code": { path: { confirmation_id: string }; body: AskCodeAt; reply: CodeView };
  /** Add one proof to what the act needs; then repeat the request that asked for it. */
  "POST /v1/me/confirmations/{confirmation_id}/proofs": { path: { confirmation_id: string }; body: ByPassword | ByMessageCode | ByTotp | ByHotp | ByOcra | ByPasskey | ByCertificate; reply: ConfirmationView };
  /** Return the texts in force, to be shown before somebody agrees to them. */
  "GET /v1/me/consent_texts": { query: { language?: "en" | "zh" }; reply: Array<ConsentTextView> };
  /** Return what one agreed to and withdrew from. */
  "GET /v1/me/consents": { reply: Array<ConsentView> };
  /** Agree to a text; agreeing again changes nothing. */
  "POST /v1/me/consents": { body: Agreed; reply: Done };
  /** Withdraw from a text that the account does not rest on. */
  "POST /v1/me/consents/withdraw": { body: ConsentKind; reply: Done };
  /** Have a code sent to a further address of one's own. */
  "POST /v1/me/contact_codes": { body: AskContactCode; reply: CodeView };
  /** Add an address that a code has proved; one of each kind, the newest. */
  "POST /v1/me/contacts": { body: AddContact; reply: ContactView };
  /** Return one's phones. */
  "GET /v1/me/devices": { reply: Array<DeviceView> };
  /** Unbind a phone; what is open there ends. */
  "POST /v1/me/devices/{device_id}/remove": { path: { device_id: string }; reply: Done };
  /** Return one's accounts, closed ones too. */
  "GET /v1/me/e_accounts": { reply: Array<EAccountView> };
  /** Open an account of a class; it takes money once it is activated. */
  "POST /v1/me/e_accounts": { body: OpenEAccount; reply: EAccountView };
  /** Return one account. */
  "GET /v1/me/e_accounts/{account_id}": { path: { account_id: string }; reply: EAccountView };
  /** Let an account take part, or wake it; one that slept only after a register agreed again. */
  "POST /v1/me/e_accounts/{account_id}/activate": { path: { account_id: string }; reply: EAccountView };
  /** Return what the account holds, or held at a moment of the past. */
  "GET /v1/me/e_accounts/{account_id}/balance": { path: { account_id: string }; query: { at?: string | null }; reply: BalanceView };
  /** Send to many accounts at once; what is to be confirmed names the sum and every payee. */
  "POST /v1/me/e_accounts/{account_id}/batches": { path: { account_id: string }; body: SendBatch; reply: EAccountBatchView };
  /** Return a batch and how far it has come. */
  "GET /v1/me/e_accounts/{account_id}/batches/{batch_id}": { path: { account_id: string; batch_id: string }; reply: EAccountBatchView };
  /** Take back every order of a batch that has not run. */
  "POST /v1/me/e_accounts/{account_id}/batches/{batch_id}/cancel": { path: { account_id: string; batch_id: string }; reply: EAccountBatchView };
  /** Return the orders of a batch in the order of its items; a failed one says why. */
  "GET /v1/me/e_accounts/{account_id}/batches/{batch_id}/orders": { path: { account_id: string; batch_id: string }; query: { cursor?: string; limit?: number }; reply: Page_EAccountOrderView };
  /** Take money from a virtual card into one's account; only the sandbox takes them yet. */
  "POST /v1/me/e_accounts/{account_id}/card_charges": { path: { account_id: string }; body: ChargeCard; reply: CardChargeView };
  /** Close an account that is empty, not frozen, and has nothing waiting. */
  "POST /v1/me/e_accounts/{account_id}/close": { path: { account_id: string }; reply: EAccountView };
  /** Return every limit of the law on one's accounts of this class, with what is left. */
  "GET /v1/me/e_accounts/{account_id}/limits": { path: { account_id: string }; reply: Array<LimitView> };
  /** Return what was ordered of an account, newest first. */
  "GET /v1/me/e_accounts/{account_id}/orders": { path: { account_id: string }; query: { cursor?: string; limit?: number }; reply: Page_EAccountOrderView };
  /** Return one order, and why it failed if it did. */
  "GET /v1/me/e_accounts/{account_id}/orders/{order_id}": { path: { account_id: string; order_id: string }; reply: EAccountOrderView };
  /** Take back an order that waits; one that has run stays. */
  "POST /v1/me/e_accounts/{account_id}/orders/{order_id}/cancel": { path: { account_id: string; order_id: string }; reply: EAccountOrderView };
  /** Return what an account has paid to merchants, newest first, and what was given back. */
  "GET /v1/me/e_accounts/{account_id}/payments": { path: { account_id: string }; query: { cursor?: string; limit?: number }; reply: Page_EAccountPaymentView };
  /** Pay a merchant's code out of an account: the money has moved when this answers. */
  "POST /v1/me/e_accounts/{account_id}/payments": { path: { account_id: string }; body: ScanCode; reply: EAccountPaymentView };
  /** Return one payment of an account, and what was given back of it. */
  "GET /v1/me/e_accounts/{account_id}/payments/{payment_id}": { path: { account_id: string; payment_id: string }; reply: EAccountPaymentView };
  /** Take what waits into one of one's own accounts; again changes nothing. */
  "POST /v1/me/e_accounts/{account_id}/returned_money/{refund_id}/take": { path: { account_id: string; refund_id: string }; reply: EAccountRefundView };
  /** Return what was moved, newest first, each with the balance after it. */
  "GET /v1/me/e_accounts/{account_id}/statement": { path: { account_id: string }; query: { cursor?: string; limit?: number }; reply: Page_LineView };
  /** Put money in from a bank card; the order waits until the card's bank has said its word. */
  "POST /v1/me/e_accounts/{account_id}/top_ups": { path: { account_id: string }; body: MoveMoney; reply: EAccountOrderView };
  /** Send money to another account; what is to be confirmed names this amount and this payee. */
  "POST /v1/me/e_accounts/{account_id}/transfers": { path: { account_id: string }; body: SendMoney; reply: EAccountOrderView };
  /** Return the virtual cards of an account, closed ones too, without their numbers. */
  "GET /v1/me/e_accounts/{account_id}/virtual_cards": { path: { account_id: string }; reply: Array<VirtualCardView> };
  /** Issue a card that pays from an account; its number is in this answer and in no other. */
  "POST /v1/me/e_accounts/{account_id}/virtual_cards": { path: { account_id: string }; body: IssueVirtualCard; reply: VirtualCardView };
  /** Give a card other limits; what it has paid stays counted. */
  "PUT /v1/me/e_accounts/{account_id}/virtual_cards/{card_id}/limits": { path: { account_id: string; card_id: string }; body: CardLimits; reply: VirtualCardView };
  /** Do to a card what ``act`` says: ``freeze`` at once, ``unfreeze`` or ``close`` confirmed. */
  "POST /v1/me/e_accounts/{account_id}/virtual_cards/{card_id}/{act}": { path: { account_id: string; card_id: string; act: string }; reply: VirtualCardView };
  /** Move money between an account and a wallet one has made one's own, now or later. */
  "POST /v1/me/e_accounts/{account_id}/wallet_transfers": { path: { account_id: string }; body: MoveWithWallet; reply: EAccountOrderView };
  /** Take money out to a bank card; it leaves the account now, and comes back if it must. */
  "POST /v1/me/e_accounts/{account_id}/withdrawals": { path: { account_id: string }; body: MoveMoney; reply: EAccountOrderView };
  /** Close the account and erase what may be erased; say what the law keeps. */
  "POST /v1/me/erasure": { reply: ErasedView };
  /** Return everything that is kept of oneself. */
  "POST /v1/me/export": { reply: ExportView };
  /** Return in which ways one can prove who one is, besides password and messages. */
  "GET /v1/me/factors": { reply: Array<FactorView> };
  /** Take a generator, a passkey or a certificate no more. */
  "POST /v1/me/factors/{factor_id}/remove": { path: { factor_id: string }; reply: Done };
  /** Say who one is; until a register agrees it may be corrected. */
  "POST /v1/me/identity": { body: GiveIdentity; reply: IdentityView };
  /** Have one register asked; ``unknown`` is neither yes nor no, and may be asked again. */
  "POST /v1/me/identity/checks": { body: AskRegister; reply: CheckView };
  /** End this session. */
  "POST /v1/me/log_out": { reply: Done };
  /** Return what one wants to hear of, and which phones are told by push. */
  "GET /v1/me/notices": { reply: NoticesView };
  /** Choose whether to hear of one's money; of the account's safety one always hears. */
  "PUT /v1/me/notices": { body: ChooseNotices; reply: NoticesView };
  /** Return what one let third parties and merchants see and do, the newest first. */
  "GET /v1/me/open_consents": { query: { cursor?: string; limit?: number }; reply: Page_OpenConsentView };
  /** End a consent and every token on it. Safe to repeat; it asks for no further proof. */
  "POST /v1/me/open_consents/{consent_id}/revoke": { path: { consent_id: string }; reply: OpenConsentView };
  /** Ask what a passkey has to sign to log in; it is the same for everybody. */
  "POST /v1/me/passkey_challenges": { body: AskPasskey; reply: PasskeyQuestion };
  /** Open a session for whoever holds a passkey of ours. */
  "POST /v1/me/passkey_sessions": { body: LogInByPasskey; reply: SessionView };
  /** Keep a new passkey. */
  "POST /v1/me/passkeys": { body: AddPasskey; reply: FactorView };
  /** Ask what a new passkey has to sign. */
  "POST /v1/me/passkeys/challenges": { reply: Question };
  /** Choose another password; every other session ends. */
  "POST /v1/me/password": { body: NewPassword; reply: Done };
  /** Have this phone told by push what happens to one's account, by the token it has now. */
  "PUT /v1/me/push_token": { body: SetPushToken; reply: Done };
  /** Have this phone told nothing by push any more; notices come by SMS. Safe to repeat. */
  "POST /v1/me/push_token/remove": { reply: Done };
  /** Get an account back; every other phone is unbound, and every address is told. */
  "POST /v1/me/recoveries": { body: Recover; reply: SessionView };
  /** Make an account and open its first session. */
  "POST /v1/me/registrations": { body: Register; reply: SessionView };
  /** Return what merchants gave back and an account could not take: it waits to be taken. */
  "GET /v1/me/returned_money": { reply: Array<EAccountRefundView> };
  /** Open a session; every refusal is the same and takes as long. */
  "POST /v1/me/sessions": { body: LogIn; reply: SessionView };
  /** Return the wallets that are one's own. */
  "GET /v1/me/wallets": { reply: Array<OwnWalletView> };
  /** Make a wallet one's own; the code is used up by that and pays nothing. */
  "POST /v1/me/wallets": { body: ClaimWallet; reply: OwnWalletView };
}
