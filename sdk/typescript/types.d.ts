// Made by `make docs` from the API's own description; edit that.

/** Give the disputed money up. */
export type AcceptDispute = { note?: string };

/** Where settlements are to be paid; ``bank_number`` is the branch's in CNAPS. */
export type Account = { kind: "corporate" | "personal"; holder: string; number: string; bank: string; bank_number: string; area_code: string };

/** Let a token pay; ``assurance_method`` says how its card's holder was verified (EMV). */
export type ActivateToken = { assurance_method?: string };

/** A code to type into the terminal, once; shown here only. */
export type ActivationCodeView = { object: "terminal_activation_code"; terminal_id: string; serial: string; code: string; expires_at: string };

/** Add a picture, in base64; one of its kind takes the place of an earlier one. */
export type AddDocument = { kind: DocumentKind; content: string };

/** Add a person. */
export type AddStaff = { role: StaffRole; every_store?: boolean; store_ids?: Array<string>; name: string; phone: string };

/** So many pieces more, or fewer: what came in, or was broken, lost or counted anew. */
export type AdjustStock = { change: number; reason: string };

/** Move business time forward by this much. */
export type AdvanceClock = { advance_s: number };

/** Where an agreement stands; the last two are ends. */
export type AgreementState = "active" | "created" | "ended" | "ending" | "failed" | "pending" | "unknown";

/** An agreement as the API and the webhooks show it. */
export type AgreementView = { id: string; object: "agreement"; mode: Mode; merchant_agreement_no: string; channel: string; plan: string; display_name: string; currency: string; status: AgreementState; version: number; amount_used: number; amount_used_total: number; payments_used: number; created_at: string; expires_at: string; limit_each?: number; period?: Period; limit_per_period?: number; limit_total?: number; payments_max?: number; next_action?: ShowQr | Redirect | SubmitForm | OpenApp; code?: string; signed_at?: string; ends_at?: string; ended_at?: string };

/** Tell the customer that this much will be taken, in the agreement's minor units. */
export type AnnounceDeduction = { amount: number };

/** What became of telling a customer. ``unknown``: they may have been told. */
export type AnnouncementView = { object: "agreement_announcement"; agreement_id: string; amount: number; currency: string; status: "announced" | "refused" | "unknown"; code?: string };

/** Answer the present stage with these words and the files handed in before. */
export type AnswerDispute = { answer?: string };

/** An API key as its merchant sees it. */
export type ApiKeyView = { id: string; object: "api_key"; mode: Mode; name: string; scopes: Array<string>; secret_tail: string; algorithm: SigningAlgorithm; api_version: string; is_good: boolean; created_at: string; expires_at?: string; revoked_at?: string; last_used_at?: string; replaced_by?: string; secret?: string };

/** What an application says. Prices are those asked for; the review agrees to them or not. */
export type ApplicationBody = { firm: Firm; legal_person: LegalPerson; contact: Contact; account: Account; trade: Trade; channels: Array<ChannelAsked>; prices: Array<PriceLine>; settlement_delay_days?: number };

/** Where an application stands. */
export type ApplicationState = "declined" | "draft" | "forwarded" | "opened" | "submitted" | "withdrawn";

/** An application as its applicant sees it; what identifies persons is masked. */
export type ApplicationView = { id: string; object: "application"; application_no: string; mode: Mode; status: ApplicationState; firm: Firm; trade: Trade; personal: Masked; channels: Array<ChannelAsked>; prices: Array<PriceLine>; settlement_delay_days: number; documents: Array<DocumentView>; created_at: string; note?: string; merchant_id?: string; submitted_at?: string; ended_at?: string };

/** Begin to open a wallet for a user; ``user_id`` is the merchant's own, the same for ever. */
export type ApplyForWallet = { user_id: string };

/** Ask what a card has that a terminal has just read. */
export type AskBalance = { card: CardReading };

/** What one attempt met. */
export type AttemptOutcome = "delivered" | "gone" | "no_answer" | "not_sent" | "redirected" | "rejected" | "throttled";

/** What one try of a delivery met. */
export type AttemptView = { number: number; at: string; outcome: AttemptOutcome; status: number | null; duration_ms: number; reply: string };

/** What the merchant is owed, by currency. */
export type BalanceView = { object: "balance"; mode: Mode; balances: Array<CurrencyBalance> };

/** Where settlements are paid to. */
export type BankAccountView = { holder: string; number_masked: string };

/** Who pays: one guest for what they ordered, or somebody for all that is unpaid. */
export type BillTab = { guest_id?: string | null };

/** Let somebody have shares of your payments. ``account`` is a merchant's or a wallet's id here, or what the channel knows them by; then ``channel`` and ``channel_kind`` (MERCHANT_ID, PERSONAL_OPENID, userId, loginName) are wanted, and ``name`` where the channel checks it. */
export type BindReceiver = { kind: "channel" | "merchant" | "wallet"; account: string; channel?: string | null; channel_kind?: string | null; name?: string | null; relation?: string };

/** Capture this much of what is set aside; everything when no amount is given. */
export type CapturePayment = { amount?: number | null; currency?: string | null };

/** One balance: ``account`` is the issuer's kind of account (30 is credit). */
export type CardBalanceView = { account: string; kind: "available" | "ledger" | "other"; amount: number; currency: string };

/** What a card has. */
export type CardBalancesView = { object: "card_balances"; balances: Array<CardBalanceView> };

/** What kind of card paid, where the channel tells; any where it does not. */
export type CardKind = "any" | "credit" | "debit" | "foreign";

/** What a terminal read of a card; it goes to the acquirer and is kept nowhere. ``entry`` is the point-of-service entry mode of ISO 8583 (field 22), ``chip_hex`` the EMV data of field 55, ``pin_block_hex`` the PIN encrypted for the acquirer by the terminal. */
export type CardReading = { number: string; expiry: string; entry: string; terminal: string; merchant: string; track2?: string | null; sequence?: string | null; chip_hex?: string | null; pin_block_hex?: string | null };

/** A token that stands for a card, as the vault gave it. One on a device comes with the number of its limited-use key, a counter and the cryptogram that the key makes of them and the amount. */
export type CardToken = { number: string; key_number?: number | null; counter?: number | null; cryptogram?: string | null };

/** A card as the API shows it: never more than the first six and the last four digits. */
export type CardView = { id: string; object: "vault_card"; bin: string; last4: string; scheme: string; payment_account_reference: string; status: string; created_at: string };

/** The price from now on, in the variant's currency. */
export type ChangePrice = { price: number };

/** What is to be different; what is left out stays. */
export type ChangeProduct = { name?: string | null; category?: string | null; description?: string | null; image_key?: string | null; on_shelf?: boolean | null };

/** What a person is there for, and where: in every store, or in those named. */
export type ChangeStaff = { role: StaffRole; every_store?: boolean; store_ids?: Array<string> };

/** What a store is from now on. */
export type ChangeStore = { name: string; place: Place; status?: "closed" | "open" };

/** A channel to be opened, with what only this channel wants to know. */
export type ChannelAsked = { channel: string; terms?: Record<string, string> };

/** Take this much for the stay, which ends at ``left_at``: now, when nothing is said. */
export type ChargeVisit = { merchant_order_no: string; amount: number; subject?: string; currency?: "AED" | "AUD" | "BHD" | "BRL" | "CAD" | "CHF" | "CLP" | "CNY" | "DKK" | "EUR" | "GBP" | "HKD" | "IDR" | "INR" | "JOD" | "JPY" | "KRW" | "KWD" | "KZT" | "MOP" | "MXN" | "MYR" | "NOK" | "NZD" | "OMR" | "PHP" | "RUB" | "SAR" | "SEK" | "SGD" | "THB" | "TND" | "TWD" | "USD" | "VND" | "ZAR"; left_at?: string | null; metadata?: Record<string, string> };

/** Where a checkout stands; the last is an end, and so is ``paid``. */
export type CheckoutStatus = "closed" | "closing" | "open" | "paid";

/** A checkout as the API shows it. ``payment_id`` is its latest try. */
export type CheckoutView = { id: string; object: "checkout"; mode: Mode; url: string; merchant_order_no: string; amount: number; currency: string; subject: string; status: CheckoutStatus; created_at: string; expires_at: string; metadata: Record<string, string>; channels?: Array<string>; return_url?: string; payment_id?: string; plate_id?: string; terminal_id?: string; closed_at?: string };

/** Business time as the platform lives it. */
export type ClockView = { now: string; business_date: string };

/** Who or what ended an unpaid payment. */
export type CloseReason = "expired" | "merchant" | "not_paid";

/** One part of a combined payment: its payment, as far as who combined it is told. */
export type CombinedPartView = { payment_id: string; merchant_id: string; merchant_order_no: string; amount: number; subject: string; status: PaymentState };

/** A combined payment as the API and the webhooks show it. */
export type CombinedPaymentView = { id: string; object: "combined_payment"; mode: Mode; merchant_combined_no: string; amount: number; currency: string; method: MethodView; status: CombinedState; version: number; parts: Array<CombinedPartView>; created_at: string; expires_at: string; next_action?: ShowQr | Redirect | SubmitForm | OpenApp; code?: string; ended_at?: string; hosted_url?: string; customer_chooses?: boolean };

/** Where a combined payment stands; the last three are ends. */
export type CombinedState = "closed" | "created" | "mixed" | "pending" | "succeeded";

/** One fee: the agent's share of it in millionths, what of that it passed on, what it got. */
export type CommissionLineView = { fee: number; share_ppm: number; passed_ppm: number; amount: number; at: string };

/** What the agent got of one merchant's fees in one run, in minor units. ``posted`` went to its balance; what was less than nothing is in ``carried_out``, for the next. */
export type CommissionView = { id: string; object: "commission"; mode: Mode; currency: string; earned: number; carried_in: number; posted: number; carried_out: number; created_at: string };

/** Where a complaint stands, in the channel's words. */
export type ComplaintState = "pending" | "processed" | "processing";

/** A complaint as the API and the webhooks show it. */
export type ComplaintView = { id: string; object: "complaint"; mode: Mode; payment_id: string; channel: string; channel_ref: string; kind: string; detail: string; amount: number; currency: string; status: ComplaintState; times: number; has_news: boolean; version: number; complained_at: string; answer_by?: string; ended_at?: string };

/** Whom a merchant lets ask for its orders together with theirs. */
export type ConsentView = { merchant_id: string; given_at: string };

/** Who channels write to; the legal person where it is nobody else. */
export type Contact = { name: string; phone: string; email: string };

/** Where a token is good, as the API shows it; null is no limit. */
export type ControlsView = { channels: Array<string>; pay_modes: Array<string>; currency: string; amount_each_max: number | null; amount_max: number | null; uses_max: number | null };

/** Offer a customer an agreement under which money is taken without asking each time. ``plan`` is the channel's number of the product and its rules. ``limit_each`` is what may be taken at once, ``limit_per_period`` what may be taken in a calendar ``period``, ``limit_total`` what in all, each in minor units, and ``payments_max`` how many payments; what the channel allows besides is its own. ``signs_in`` is where the customer is to sign: on a page, or, at WeChat Pay and Alipay, out of the merchant's app or mini-program. */
export type CreateAgreement = { merchant_agreement_no: string; channel: string; plan: string; display_name: string; payer_id?: string | null; return_url?: string | null; currency?: string; limit_each?: number | null; period?: Period | null; limit_per_period?: number | null; limit_total?: number | null; payments_max?: number | null; expires_in_s?: number | null; signs_in?: "app" | "mini_program" | "page" };

/** Apply for a merchant, under a number of the applicant's own. */
export type CreateApplication = { firm: Firm; legal_person: LegalPerson; contact: Contact; account: Account; trade: Trade; channels: Array<ChannelAsked>; prices: Array<PriceLine>; settlement_delay_days?: number; application_no: string };

/** Have several orders paid in one go. Amounts are minor units: 1999 is 19.99 yuan. Modes are ``qr``, ``in_app``, ``app`` and ``h5``; without a channel, one that combines is taken. */
export type CreateCombined = { merchant_combined_no: string; method: MethodAsked; orders: Array<PartOrder>; currency?: "AED" | "AUD" | "BHD" | "BRL" | "CAD" | "CHF" | "CLP" | "CNY" | "DKK" | "EUR" | "GBP" | "HKD" | "IDR" | "INR" | "JOD" | "JPY" | "KRW" | "KWD" | "KZT" | "MOP" | "MXN" | "MYR" | "NOK" | "NZD" | "OMR" | "PHP" | "RUB" | "SAR" | "SEK" | "SGD" | "THB" | "TND" | "TWD" | "USD" | "VND" | "ZAR"; expires_in_s?: number | null; customer_chooses?: boolean };

/** Tell this address what happens; no types, or ``*``, means everything. */
export type CreateEndpoint = { url: string; event_types?: Array<string>; description?: string; api_version?: string | null };

/** Collect this much from a customer. ``amount`` is minor units: 1999 is 19.99 yuan. With ``capture`` manual the money is only set aside, for ``capture_within_s`` seconds (seven days when not said), and moves when it is captured. With ``terminal_id`` the payment counts against that terminal's limits, and the terminal tells of it when it is paid. */
export type CreatePayment = { merchant_order_no: string; amount: number; subject: string; method: MethodAsked; currency?: string; expires_in_s?: number | null; metadata?: Record<string, string>; capture?: "automatic" | "manual"; capture_within_s?: number | null; terminal_id?: string | null };

/** Give back this much of a payment. */
export type CreateRefund = { merchant_refund_no: string; amount: number; currency?: string; reason?: string };

/** Share a payment. Each share is an amount, or a ratio in millionths of what came in. With ``releases`` at, shares are held until ``release_at``; with later, until you release them. */
export type CreateSplit = { merchant_split_no: string; shares: Array<PartAsked>; releases?: "at" | "later" | "now"; release_at?: string | null };

/** What a merchant is owed in one currency. ``available`` may be settled or refunded; ``held`` is promised to open refunds; ``settling`` is settled and on its way to the bank; ``reserved`` is kept back for a time. */
export type CurrencyBalance = { currency: string; available: number; held: number; settling: number; reserved: number };

/** Where a delivery stands. */
export type DeliveryState = "failed" | "pending" | "succeeded";

/** One event on its way to one endpoint. */
export type DeliveryView = { id: string; endpoint_id: string; event_id: string; event_type: string; resource_id: string; state: DeliveryState; attempts: number; last_status: number | null; next_at: string | null; created_at: string; closed_at: string | null };

/** Where a transfer goes. */
export type Destination = "alipay" | "bank" | "wallet" | "wechat_pay";

/** Who or what disabled an endpoint. */
export type DisabledBecause = "failing" | "gone" | "merchant";

/** Where a dish stands in the kitchen. */
export type DishState = "cancelled" | "cooking" | "ordered" | "ready" | "served";

/** A line of a kitchen ticket; with ``order_id`` it is on a bill. */
export type DishView = { id: string; object: "dish"; tab_id: string; code: string; name: string; price: number; currency: string; quantity: number; wishes: string; guest_id: string; guest_name: string; status: DishState; is_paid: boolean; created_at: string; order_id?: string };

/** Where a dispute stands; ``closed`` and the last three are ends. */
export type DisputeState = "accepted" | "arbitration" | "chargeback" | "closed" | "lost" | "pre_arbitration" | "represented" | "retrieval" | "won";

/** A dispute as the API and the webhooks show it. */
export type DisputeView = { id: string; object: "dispute"; mode: Mode; payment_id: string; scheme: string; scheme_ref: string; reason_code: string; reason: string; status: DisputeState; amount: number; currency: string; amount_held: number; fee: number; version: number; opened_at: string; answer_by?: string; answered_at?: string; ended_at?: string };

/** What a picture shows. */
export type DocumentKind = "bank_permit" | "business_license" | "legal_id_back" | "legal_id_front" | "qualification" | "store_front" | "store_inside";

/** A document as its applicant sees it: what it is, and its digest, never its bytes. */
export type DocumentView = { id: string; kind: DocumentKind; media_type: string; size: number; sha256: string; added_at: string };

/** What an EMV code says of a merchant beside where to pay. ``category`` is the ISO 18245 merchant category code; name and city are in Latin letters. */
export type EmvAsked = { category: string; name: string; city: string };

/** Whether an endpoint is told of events. */
export type EndpointState = "deleted" | "disabled" | "enabled";

/** A car drove in. ``lot`` is the channel's number of the car park, where it has one (Alipay). The first ``free_s`` seconds cost nothing. The plate is kept sealed and shown to nobody again. */
export type EnterCarPark = { merchant_visit_no: string; channel: string; plate: string; plate_colour: "BLACK" | "BLUE" | "GREEN" | "LIMEGREEN" | "WHITE" | "YELLOW"; place: string; lot?: string; free_s?: number; entered_at?: string | null; device?: string };

/** An event as merchants see it, in the list of events and in webhooks alike. */
export type EventView = { id: string; type: string; created_at: string; mode: Mode; data: Record<string, unknown> };

/** Why a payment failed, for the program and for the customer in both languages. */
export type Failure = { code: string; message: string; message_zh: string };

/** A file as the API shows it; the content is not given back. */
export type FileView = { id: string; object: "evidence_file"; name: string; media_type: string; size: number; sha256: string };

/** Say that no more shares of a payment follow; a channel then frees what is left. */
export type FinishSplits = { merchant_split_no: string };

/** Who applies, as the business licence has it. Without ``license_ends`` it is for good. */
export type Firm = { kind: "enterprise" | "individual_business"; legal_name: string; short_name: string; credit_code: string; address: string; license_begins: string; license_ends?: string | null };

/** The opened merchant's first key; ``secret`` is in the first answer only. */
export type FirstKey = { id: string; object: "first_key"; merchant_id: string; key_id: string; scopes: Array<string>; secret?: string };

/** Give a phone a key; ``replaces`` is the id of the one it has had so far, if it had one. */
export type GiveOfflineKey = { device_name: string; replaces?: string | null };

/** Give a device its next key, good for so many uses. */
export type GiveUseKey = { uses_max?: number; refill_at?: number };

/** Take a part for this wallet. */
export type Grab = { wallet_id: string };

/** What became of a grab: the wallet's part, or that there is nothing to take any more. */
export type GrabAnswer = { object: "red_packet_grab_answer"; outcome: "empty" | "grabbed"; grab?: GrabView };

/** A part that somebody took. */
export type GrabView = { id: string; object: "red_packet_grab"; red_packet_id: string; wallet_id: string; part: number; amount: number; currency: string; grabbed_at: string };

/** One file, its content as base64. PDF, JPEG or PNG, up to 700 KiB. */
export type HandIn = { name: string; media_type: "application/pdf" | "image/jpeg" | "image/png"; content: string };

/** A picture itself; ``content`` is base64. */
export type ImageContentView = { object: "complaint_image_content"; id: string; media_type: string; content: string };

/** Whether a picture that a customer sent along is here. */
export type ImageState = "gone" | "kept" | "refused" | "wanted";

/** A picture that a customer sent along; ``status`` kept: its content can be fetched. */
export type ImageView = { id: string; object: "complaint_image"; complaint_id: string; status: ImageState; seen_at: string; media_type?: string; size?: number; sha256?: string };

/** How a red packet is split. */
export type Kind = "equal" | "lucky";

/** What happens to money that arrives after the order was given up. */
export type LateSuccess = "accept_if_open" | "refund";

/** The car drove out, now when nothing is said. */
export type LeaveCarPark = { left_at?: string | null };

/** Who answers for the firm, as on their identity card. */
export type LegalPerson = { name: string; id_number: string; id_begins: string; id_ends?: string | null; address?: string };

/** What a terminal may take, in minor units; what is left out is unlimited. */
export type Limits = { each?: number | null; count?: number | null; amount?: number | null };

/** A terminal's limits, the platform's caps over them, and what counts today. */
export type LimitsView = { object: "terminal_limits"; terminal_id: string; currency: string; limits: Limits; caps: Limits; used_count: number; used_amount: number };

/** So many pieces of a variant. */
export type LineAsked = { sku_id: string; quantity?: number };

/** A line of an order as the API shows it. */
export type LineView = { number: number; code: string; name: string; price: number; quantity: number; amount: number; refunded_quantity: number };

/** Make a link for the user to agree to a proposal. */
export type LinkToProposal = { return_url: string };

/** Make a link for the user: to ``open`` the wallet, or to ``manage`` what they allowed. */
export type LinkToWallet = { return_url: string; purpose?: "manage" | "open" };

/** Ask about a plate of the customer whom the channel knows by ``payer_id``. */
export type LookUpPlate = { channel: string; plate: string; plate_colour: "BLACK" | "BLUE" | "GREEN" | "LIMEGREEN" | "WHITE" | "YELLOW"; payer_id: string };

/** Put a code on the counter. Without ``amount`` the customer enters it. ``name`` tells your plates apart; ``subject`` is what the customer sees they pay for. With ``emv`` the plate also has an EMV merchant-presented text, for scanners that want one. */
export type MakePlate = { name: string; subject: string; amount?: number | null; currency?: "AED" | "AUD" | "BHD" | "BRL" | "CAD" | "CHF" | "CLP" | "CNY" | "DKK" | "EUR" | "GBP" | "HKD" | "IDR" | "INR" | "JOD" | "JPY" | "KRW" | "KWD" | "KZT" | "MOP" | "MXN" | "MYR" | "NOK" | "NZD" | "OMR" | "PHP" | "RUB" | "SAR" | "SEK" | "SGD" | "THB" | "TND" | "TWD" | "USD" | "VND" | "ZAR"; emv?: EmvAsked | null };

/** A product with its variants; ``image_key`` is where its picture is kept, if there is one. */
export type MakeProduct = { name: string; skus: Array<MakeSku>; category?: string; description?: string; image_key?: string | null; on_shelf?: boolean };

/** A variant to be sold. Without ``stock`` there is always more of it. */
export type MakeSku = { code: string; price: number; name?: string; currency?: "AED" | "AUD" | "BHD" | "BRL" | "CAD" | "CHF" | "CLP" | "CNY" | "DKK" | "EUR" | "GBP" | "HKD" | "IDR" | "INR" | "JOD" | "JPY" | "KRW" | "KWD" | "KZT" | "MOP" | "MXN" | "MYR" | "NOK" | "NZD" | "OMR" | "PHP" | "RUB" | "SAR" | "SEK" | "SGD" | "THB" | "TND" | "TWD" | "USD" | "VND" | "ZAR"; stock?: number | null };

/** A table with a printed code; ``name`` is what the kitchen calls it. */
export type MakeTable = { name: string };

/** The same as people may see it. */
export type Masked = { legal_name: string; id_number: string; contact_name: string; phone: string; email: string; holder: string; number: string };

/** What the merchant may do: take new payments, give money back, be paid out. */
export type MerchantState = "active" | "gone" | "held" | "leaving" | "stopped" | "suspended";

/** A merchant as it sees itself, in the mode of its key. */
export type MerchantView = { id: string; object: "merchant"; name: string; mode: Mode; status: MerchantState; late_success: LateSuccess; settlement_delay_days: number; channels: Array<string>; created_at: string; bank_account?: BankAccountView; price_plan?: PricePlanView };

/** One thing that was said or done about a complaint. */
export type MessageView = { who: "channel" | "customer" | "merchant"; kind: string; text: string; image_count: number; at: string };

/** How to collect, and what the way of paying needs to know of the customer. ``app``: the channel. ``payment_code``: the digits the customer shows, which say by themselves whose they are. ``in_app``: the channel and the customer's id there. ``h5``, ``web``: where the customer comes back to. ``agreement``: the agreement to collect under. ``card``: what the terminal read, or ``card_token`` in its place. ``app_id`` names the page or app that asks, where it is not the channel account's own; at UnionPay it is the product of its page. ``qr``, ``h5``, ``web`` and ``card`` may leave the channel to us. */
export type MethodAsked = { mode: PayMode; channel?: string | null; auth_code?: string | null; payer_id?: string | null; return_url?: string | null; app_id?: string | null; agreement_id?: string | null; card?: CardReading | null; card_token?: CardToken | null };

/** How a payment is made, as the API shows it. */
export type MethodView = { channel: string; mode: PayMode; agreement_id?: string; combined_payment_id?: string; parking_visit_id?: string };

/** Which world a key or a row belongs to. */
export type Mode = "live" | "sandbox";

/** Where the dish is now. */
export type MoveDish = { status: "cancelled" | "cooking" | "ready" | "served" };

/** A phone's key for codes without network. ``secret`` is hex, and shown once. The code of a step is ``prefix``, ``alias`` and a one-time number of ``digits`` digits; a step is ``step_s`` seconds of real time. ``server_time`` lets the phone set its watch. */
export type OfflineKeyView = { id: string; object: "offline_key"; wallet_id: string; device_name: string; status: string; alias: string; algorithm: "HMAC-SM3"; prefix: string; digits: number; step_s: number; limit_each: number; limit_per_day: number; created_at: string; expires_at: string; server_time: string; secret?: string };

/** Hand these to the channel's own code, in its page or in the merchant's app. */
export type OpenApp = { type: "open_app"; parameters: Record<string, string> };

/** Let a customer pay this much on our page. ``amount`` is minor units: 1999 is 19.99 yuan. ``channels`` limits which of the merchant's channels are offered; all of them by default. The customer can go back to ``return_url`` afterwards; that they did says nothing about the money. With ``terminal_id`` each try counts against that terminal's limits, and it tells of it. */
export type OpenCheckout = { merchant_order_no: string; amount: number; subject: string; currency?: "AED" | "AUD" | "BHD" | "BRL" | "CAD" | "CHF" | "CLP" | "CNY" | "DKK" | "EUR" | "GBP" | "HKD" | "IDR" | "INR" | "JOD" | "JPY" | "KRW" | "KWD" | "KZT" | "MOP" | "MXN" | "MYR" | "NOK" | "NZD" | "OMR" | "PHP" | "RUB" | "SAR" | "SEK" | "SGD" | "THB" | "TND" | "TWD" | "USD" | "VND" | "ZAR"; channels?: Array<string>; return_url?: string | null; expires_in_s?: number | null; metadata?: Record<string, string>; terminal_id?: string | null };

/** Open a store. */
export type OpenStore = { store_no: string; name: string; place: Place };

/** Open a wallet for a person; of the name only the last character is kept. */
export type OpenWallet = { holder_name: string; currency?: "AED" | "AUD" | "BHD" | "BRL" | "CAD" | "CHF" | "CLP" | "CNY" | "DKK" | "EUR" | "GBP" | "HKD" | "IDR" | "INR" | "JOD" | "JPY" | "KRW" | "KWD" | "KZT" | "MOP" | "MXN" | "MYR" | "NOK" | "NZD" | "OMR" | "PHP" | "RUB" | "SAR" | "SEK" | "SGD" | "THB" | "TND" | "TWD" | "USD" | "VND" | "ZAR" };

/** Lines of CSV with a heading (RFC 4180), and the cursor of the next page, if there is one. What a spreadsheet would run as a formula has an apostrophe before it. */
export type OrderExport = { object: "order_export"; csv: string; orders: number; next_cursor: string | null };

/** Where the giving back of some of an order stands. */
export type OrderRefundState = "failed" | "requested" | "succeeded";

/** What is given back of an order, as the API and the webhooks show it. */
export type OrderRefundView = { id: string; object: "order_refund"; mode: Mode; order_id: string; amount: number; lines: Array<RefundedLine>; restock: boolean; reason: string; status: OrderRefundState; created_at: string; code?: string; refund_id?: string; ended_at?: string };

/** Where an order stands. */
export type OrderState = "cancelled" | "fulfilled" | "paid" | "placed" | "refunded";

/** An order as the API and the webhooks show it; ``url`` is where the customer pays it. */
export type OrderView = { id: string; object: "order"; mode: Mode; merchant_order_no: string; scene: Scene; status: OrderState; amount: number; currency: string; amount_refunded: number; subject: string; created_at: string; expires_at: string; metadata: Record<string, string>; lines?: Array<LineView>; payment_id?: string; tab_id?: string; url?: string; paid_at?: string; ended_at?: string };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_AgreementView = { items: Array<AgreementView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_ApiKeyView = { items: Array<ApiKeyView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_ApplicationView = { items: Array<ApplicationView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_AttemptView = { items: Array<AttemptView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_CardView = { items: Array<CardView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_CheckoutView = { items: Array<CheckoutView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_CombinedPaymentView = { items: Array<CombinedPaymentView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_CommissionLineView = { items: Array<CommissionLineView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_CommissionView = { items: Array<CommissionView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_ComplaintView = { items: Array<ComplaintView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_ConsentView = { items: Array<ConsentView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_DeliveryView = { items: Array<DeliveryView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_DishView = { items: Array<DishView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_DisputeView = { items: Array<DisputeView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_EventView = { items: Array<EventView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_GrabView = { items: Array<GrabView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_OfflineKeyView = { items: Array<OfflineKeyView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_OrderRefundView = { items: Array<OrderRefundView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_OrderView = { items: Array<OrderView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_ParametersView = { items: Array<ParametersView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_ParkingVisitView = { items: Array<ParkingVisitView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_PaymentView = { items: Array<PaymentView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_PayoutView = { items: Array<PayoutView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_PlateView = { items: Array<PlateView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_ProductView = { items: Array<ProductView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_ReceiverView = { items: Array<ReceiverView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_RedPacketView = { items: Array<RedPacketView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_RefundView = { items: Array<RefundView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_RequestView = { items: Array<RequestView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_ReviewView = { items: Array<ReviewView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_SettlementLineView = { items: Array<SettlementLineView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_SettlementView = { items: Array<SettlementView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_StaffActView = { items: Array<StaffActView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_StaffView = { items: Array<StaffView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_StoreView = { items: Array<StoreView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_TabView = { items: Array<TabView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_TableView = { items: Array<TableView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_TerminalView = { items: Array<TerminalView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_TokenView = { items: Array<TokenView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_TransferBatchView = { items: Array<TransferBatchView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_TransferItemView = { items: Array<TransferItemView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_WalletApplicationView = { items: Array<WalletApplicationView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_WalletLineView = { items: Array<WalletLineView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_WalletProgrammeView = { items: Array<WalletProgrammeView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_WalletProposalView = { items: Array<WalletProposalView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_WalletView = { items: Array<WalletView>; next_cursor?: string | null };

/** One page of a list, newest first, and the cursor of the next, if there is one. */
export type Page_WebhookEndpointView = { items: Array<WebhookEndpointView>; next_cursor?: string | null };

/** A paper as the API gives it; ``content`` is base64. */
export type PaperView = { object: "paper"; name: string; media_type: string; sha256: string; content: string };

/** What a terminal may be told to do; what is left out stays as it is. ``volume`` and ``brightness`` are 0 to 10, ``heartbeat_s`` seconds between two heartbeats. */
export type Parameters = { volume?: number; brightness?: number; language?: "en" | "zh"; speaks?: boolean; prints?: boolean; heartbeat_s?: number; idle_text?: string };

/** One version of what a terminal is to do. */
export type ParametersView = { object: "terminal_parameters"; terminal_id: string; version: number; own: Record<string, unknown>; effective: Record<string, unknown>; reason: string; made_at: string };

/** Whether a plate's fees can be taken without its driver's doing; the plate is not repeated. */
export type ParkingPlateView = { object: "parking_plate"; channel: string; status: "blocked" | "open"; code?: string };

/** A visit as the API and the webhooks show it; the plate is shown to nobody again. */
export type ParkingVisitView = { id: string; object: "parking_visit"; mode: Mode; merchant_visit_no: string; channel: string; place: string; lot: string; free_s: number; status: VisitState; version: number; entered_at: string; created_at: string; left_at?: string; code?: string; payment_id?: string };

/** Who gets a share, and how much: minor units, or millionths of what came in. */
export type PartAsked = { receiver_id: string; amount?: number | null; ratio_ppm?: number | null };

/** One order to be paid with others; ``merchant_id`` where it is another merchant's. */
export type PartOrder = { merchant_order_no: string; amount: number; subject: string; merchant_id?: string | null; metadata?: Record<string, string> };

/** How the customer meets the payment. */
export type PayMode = "agreement" | "app" | "card" | "h5" | "in_app" | "payment_code" | "qr" | "web";

/** A payment code, for the customer's screen; it is not shown again. */
export type PaymentCodeView = { object: "payment_code"; wallet_id: string; code: string; expires_at: string };

/** Everything shared of a payment, and what came back. */
export type PaymentShares = { amount_shared: number; splits: Array<SplitView>; returns: Array<SplitReturnView> };

/** Where a payment stands; the last four are ends. */
export type PaymentState = "authorised" | "capturing" | "closed" | "created" | "failed" | "pending" | "succeeded" | "unknown" | "voided" | "voiding";

/** A payment as the API and the webhooks show it. */
export type PaymentView = { id: string; object: "payment"; mode: Mode; merchant_order_no: string; amount: number; currency: string; subject: string; method: MethodView; status: PaymentState; version: number; amount_captured: number; amount_refunded: number; fee: number; fee_returned: number; created_at: string; expires_at: string; metadata: Record<string, string>; next_action?: ShowQr | Redirect | SubmitForm | OpenApp; failure?: Failure; close_reason?: CloseReason; succeeded_at?: string; ended_at?: string; capture?: "automatic" | "manual"; amount_authorised?: number; amount_capturing?: number; amount_disputed?: number; authorised_at?: string; capture_before?: string };

/** The facts of an electronic receipt (电子回单), in the order they are digested. */
export type PayoutReceipt = { number: string; settlement: string; merchant: string; holder: string; account: string; amount: number; currency: string; bank_reference: string; paid_at: string; ledger_book: number; ledger_transfer: string; ledger_seq: number };

/** A payout's receipt: its facts, their digest, and the same on paper. */
export type PayoutReceiptView = { object: "payout_receipt"; facts: PayoutReceipt; digest: string; paper: PaperView };

/** Where a payout stands; the last three are ends. */
export type PayoutState = "failed" | "pending" | "requested" | "returned" | "succeeded" | "unknown";

/** A payout as the API and the webhooks show it. */
export type PayoutView = { id: string; object: "payout"; mode: Mode; settlement_id: string; amount: number; currency: string; status: PayoutState; version: number; created_at: string; bank_account?: string; bank_reference?: string; failure_code?: string; ended_at?: string; returned_at?: string };

/** How often a limit begins anew, in the business's time zone; weeks begin on Monday. */
export type Period = "day" | "month" | "week" | "year";

/** A code with which a person chooses a PIN at a terminal, once; shown here only. */
export type PinCodeView = { object: "staff_pin_code"; staff_id: string; code: string; expires_at: string };

/** Where a store is; ``area_code`` is the six digits of GB/T 2260. */
export type Place = { area_code: string; address: string; point?: Point | null };

/** What a customer buys, at the prices of now. The goods are theirs until the time is over. */
export type PlaceOrder = { merchant_order_no: string; lines: Array<LineAsked>; return_url?: string | null; expires_in_s?: number; metadata?: Record<string, string> };

/** Where a terminal stands. A speaker that is bound to a plate tells what is paid there. */
export type PlaceTerminal = { name?: string; plate_id?: string | null; store_id?: string | null };

/** Whether a plate opens the cashier. */
export type PlateState = "active" | "revoked";

/** A plate as the API shows it. ``url`` is what its code says; the image is that code, drawn. */
export type PlateView = { id: string; object: "plate"; mode: Mode; name: string; subject: string; currency: string; status: PlateState; url: string; image_url: string; created_at: string; amount?: number; emv_text?: string; revoked_at?: string };

/** Degrees as text, with at most six decimals, in the datum maps of China use (GCJ-02). */
export type Point = { latitude: string; longitude: string };

/** What a way of paying costs the merchant; ``fixed``, ``fee_min``, ``fee_max`` in minor units. ``refund_fee``: whether a refund gives its part of the fee back; ``plan`` leaves it to the plan. */
export type PriceLine = { channel: string; pay_mode: string; rate_ppm: number; fixed?: number; fee_min?: number; fee_max?: number | null; card?: CardKind; steps?: Array<Step>; promotions?: Array<Promotion>; refund_fee?: "kept" | "plan" | "returned" };

/** What payments cost the merchant from a moment on, until the next version's. */
export type PricePlanView = { id: string; version: number; valid_from: string; currency: string; refund_returns_fee: boolean; lines: Array<PriceLine> };

/** Every version of a merchant's prices in one mode, in the order they begin. */
export type PricePlans = { items: Array<PricePlanView> };

/** What one payment would cost now, and which charge of the plan says so. */
export type PriceQuoteView = { object: "price_quote"; amount: number; currency: string; channel: string; pay_mode: string; fee: number; refund_returns_fee: boolean; plan_version: number; basis: string; day: string; month_volume?: number };

/** Why a request was not done, and what its sender can do about it. */
export type Problem = { type: string; title: string; status: number; code: string; detail: string; advice: string; doc_url: string; request_id: string; param?: string | null; facts?: Record<string, string | number | boolean | null> };

/** A product as its merchant sees it. */
export type ProductView = { id: string; object: "product"; mode: Mode; name: string; category: string; description: string; on_shelf: boolean; skus: Array<SkuView>; created_at: string; image_key?: string };

/** Whether a programme may be used. */
export type ProgrammeState = "active" | "pending" | "suspended";

/** The charge on business days in ``[from_day, until_day)``, in the place of any other. */
export type Promotion = { rate_ppm: number; fixed?: number; fee_min?: number; fee_max?: number | null; from_day: string; until_day: string };

/** Where a proposal stands; ``processing``: the person agreed, and it is not known yet. */
export type ProposalState = "awaiting" | "declined" | "done" | "expired" | "failed" | "processing";

/** Propose a movement that the user agrees to, or not, on a page of ours. */
export type ProposeToWallet = { merchant_proposal_no: string; application_id: string; kind: "payment" | "top_up" | "transfer" | "withdrawal"; amount: number; purpose: string; currency?: "AED" | "AUD" | "BHD" | "BRL" | "CAD" | "CHF" | "CLP" | "CNY" | "DKK" | "EUR" | "GBP" | "HKD" | "IDR" | "INR" | "JOD" | "JPY" | "KRW" | "KWD" | "KZT" | "MOP" | "MXN" | "MYR" | "NOK" | "NZD" | "OMR" | "PHP" | "RUB" | "SAR" | "SEK" | "SGD" | "THB" | "TND" | "TWD" | "USD" | "VND" | "ZAR"; payee?: string | null; payment_code?: string | null; expires_in_s?: number };

/** Whether a code can still be paid. */
export type QrStatus = "ended" | "paid" | "payable";

/** Have the customer dispute a sandbox payment; left out, the amount is all that was paid. */
export type RaiseDispute = { amount?: number | null; stage?: "chargeback" | "retrieval" };

/** Why something is done, for those who read it later. */
export type Reason = { reason: string };

/** Transfers, and the proof that a signed checkpoint holds them. */
export type Receipt = { object: "tongbao.receipt/1"; checkpoint: string; transfers: Array<ReceiptTransfer> };

/** The part of a recorded transfer that every receipt shows. ``amount`` is minor units. */
export type ReceiptEntry = { book: number; seq: number; id: string; amount: number; currency: string; kind: string; flags: number; code: number; reference: string; pending_id: string | null; biz_date: string; value_date: string; at: string };

/** One side of a transfer: open for whom it belongs to, and for others only ``sealed``. What is sealed cannot be changed later, nor looked into. */
export type ReceiptSide = { sealed?: string; salt?: string; account?: number; owner?: string | null; kind?: string; previous?: string | null; after?: number };

/** A transfer and the way from it to the root of the checkpoint. */
export type ReceiptTransfer = { entry: ReceiptEntry; code: string; code_proof: Array<string>; debit: ReceiptSide; credit: ReceiptSide; proof: Array<string> };

/** Whether somebody may get shares. */
export type ReceiverState = "active" | "binding" | "failed" | "unbinding" | "unbound";

/** Somebody who may get shares, as the merchant sees them. */
export type ReceiverView = { id: string; object: "split_receiver"; mode: Mode; kind: "channel" | "merchant" | "wallet"; account: string; relation: string; status: ReceiverState; created_at: string; channel?: string; code?: string };

/** Whether there is something to take. */
export type RedPacketState = "emptied" | "open" | "returned";

/** A red packet as the API and the webhooks show it. */
export type RedPacketView = { id: string; object: "red_packet"; mode: Mode; wallet_id: string; kind: Kind; amount: number; currency: string; parts: number; greeting: string; status: RedPacketState; parts_taken: number; amount_taken: number; amount_returned: number; created_at: string; expires_at: string; ended_at?: string };

/** Send the customer's browser there. */
export type Redirect = { type: "redirect"; url: string };

/** Where a stuck refund is sent, as the API shows it; whose card it is nobody is shown. */
export type RedirectionView = { refund_id: string; object: "refund_redirection"; target: "customer_card" | "merchant_account"; status: "accepted" | "refused" | "requested"; asked_at: string; code?: string; ended_at?: string };

/** Give back these pieces, all that are left when none are named. */
export type RefundOrder = { lines?: Array<RefundedLine>; restock?: boolean; reason?: string };

/** Where a refund stands; the last two are ends. */
export type RefundState = "failed" | "pending" | "requested" | "succeeded" | "unknown";

/** A refund as the API and the webhooks show it; ``staff_id``: who gave it back at a till. */
export type RefundView = { id: string; object: "refund"; mode: Mode; payment_id: string; merchant_refund_no: string; amount: number; currency: string; fee_returned: number; kind: "late" | "merchant"; reason: string; status: RefundState; version: number; created_at: string; code?: string; ended_at?: string; staff_id?: string };

/** So many pieces of a line. */
export type RefundedLine = { number: number; quantity: number };

/** Where a registration stands. */
export type RegistrationState = "asked" | "auditing" | "canceled" | "finished" | "manual" | "opening" | "rejected" | "signing" | "verifying" | "waiting";

/** How an application stands at one channel. The merchant is to go to ``action_url``; ``reasons`` say what the channel wants corrected. */
export type RegistrationView = { id: string; object: "registration"; application_id: string; channel: string; status: RegistrationState; created_at: string; reasons: Array<RejectedField>; sub_merchant?: string; action_url?: string; ended_at?: string };

/** An application's registrations, one for each channel it asked for. */
export type Registrations = { items: Array<RegistrationView> };

/** One thing the channel wants corrected, in its words. */
export type RejectedField = { field: string; reason: string };

/** What came of sending a request again. */
export type ReplayView = { object: "request_replay"; replayed: string; request_id: string; status: number; answer: unknown };

/** What became of something we said. */
export type ReplyState = "refused" | "requested" | "sent" | "unknown";

/** Tell the customer this, or (``complete``) say that all is done. ``image_ids`` are pictures that were handed in for the complaint, up to four. */
export type ReplyToComplaint = { text?: string; complete?: boolean; image_ids?: Array<string> };

/** Something said to a customer, as the API shows it. */
export type ReplyView = { id: string; object: "complaint_reply"; complaint_id: string; kind: "complete" | "reply"; text: string; status: ReplyState; created_at: string; code?: string };

/** Ask for a token that stands for a card, within limits. */
export type RequestToken = { expires_at: string; kind?: "card_on_file" | "device"; controls?: TokenControls };

/** A request of the merchant's own: of a sandbox key also what it said, masked. */
export type RequestView = { id: string; object: "request"; mode: Mode; key_id: string; created_at: string; method: string; route: string; status: number; duration_us: number; is_replayable: boolean; code?: string; target?: string; body?: unknown; answer?: unknown };

/** Take a share back, or a part of it. */
export type ReturnShare = { merchant_return_no: string; receiver_id: string; amount: number };

/** Where a share that is to come back stands. */
export type ReturnState = "failed" | "pending" | "requested" | "succeeded" | "unknown";

/** What the customer thinks of a paid order. */
export type ReviewOrder = { stars: number; words?: string };

/** What a customer thinks of a paid order. */
export type ReviewView = { object: "order_review"; order_id: string; stars: number; words: string; created_at: string };

/** Replace the key; the old one stays good for so long. With a public key of yours (PEM: Ed25519, EC P-256, RSA of 2048 bits or more, SM2) the new key's requests are signed by its private half as of RFC 9421, and its secret only encrypts fields. */
export type RollApiKey = { overlap_s?: number; public_key?: string };

/** The version whose parameters come back. */
export type RollBack = { version: number };

/** Issue a new key; the old one signs beside it for this long. */
export type RotateKey = { overlap_s?: number };

/** What is wrong with one row: the line of the file, the column, and why. */
export type RowFault = { line: number; column: string; reason: string };

/** Keep a card. There is no field for a security code: it is not kept, and not taken. */
export type SaveCard = { number: string; expiry: string };

/** What the wallet's app has scanned, as it is. */
export type ScanQr = { code: string };

/** Where an order was made. */
export type Scene = "counter" | "shop" | "table";

/** An amount keyed in by a cashier, and the code that the customer's phone shows. */
export type SellAtCounter = { merchant_order_no: string; amount: number; auth_code: string; subject?: string; currency?: "AED" | "AUD" | "BHD" | "BRL" | "CAD" | "CHF" | "CLP" | "CNY" | "DKK" | "EUR" | "GBP" | "HKD" | "IDR" | "INR" | "JOD" | "JPY" | "KRW" | "KWD" | "KZT" | "MOP" | "MXN" | "MYR" | "NOK" | "NZD" | "OMR" | "PHP" | "RUB" | "SAR" | "SEK" | "SGD" | "THB" | "TND" | "TWD" | "USD" | "VND" | "ZAR" };

/** Put this much aside for so many people. ``amount`` is the whole, in minor units. ``equal`` gives everybody the same, ``lucky`` a share by chance of at least 1 minor unit. What nobody took after ``expires_in_s`` (a day when not said) goes back to the wallet. */
export type SendRedPacket = { wallet_id: string; kind: Kind; amount: number; parts: number; currency?: "AED" | "AUD" | "BHD" | "BRL" | "CAD" | "CHF" | "CLP" | "CNY" | "DKK" | "EUR" | "GBP" | "HKD" | "IDR" | "INR" | "JOD" | "JPY" | "KRW" | "KWD" | "KZT" | "MOP" | "MXN" | "MYR" | "NOK" | "NZD" | "OMR" | "PHP" | "RUB" | "SAR" | "SEK" | "SGD" | "THB" | "TND" | "TWD" | "USD" | "VND" | "ZAR"; greeting?: string; expires_in_s?: number | null };

/** Where a refund goes that the customer's card or account could not take. ``customer_card``: a card of the customer's, with its bank in the channel's words (ICBC_DEBIT), its number and its holder. ``merchant_account``: back to the merchant, who then owes it. */
export type SendRefundElsewhere = { target: "customer_card" | "merchant_account"; bank?: string; account_number?: string; holder?: string };

/** A file of transfers: CSV with number, destination, payee, name, bank, amount and note. Destinations are bank, wallet, wechat_pay and alipay; amounts are in major units. */
export type SendTransfers = { number: string; csv: string; currency?: string };

/** What a terminal may take, in minor units: at once, and in a business day. */
export type SetLimits = { currency?: "AED" | "AUD" | "BHD" | "BRL" | "CAD" | "CHF" | "CLP" | "CNY" | "DKK" | "EUR" | "GBP" | "HKD" | "IDR" | "INR" | "JOD" | "JPY" | "KRW" | "KWD" | "KZT" | "MOP" | "MXN" | "MYR" | "NOK" | "NZD" | "OMR" | "PHP" | "RUB" | "SAR" | "SEK" | "SGD" | "THB" | "TND" | "TWD" | "USD" | "VND" | "ZAR"; each?: number | null; count?: number | null; amount?: number | null };

/** A terminal's own parameters; they replace all that it had of its own. */
export type SetParameters = { parameters: Parameters; reason: string };

/** What the merchant asks its users for from now on, and where they are sent back to. */
export type SetWalletProgramme = { name: string; return_urls: Array<string>; account_class: number; grants: Array<"balance" | "propose" | "statement">; each_max: number; day_max: number };

/** Which balance is to be settled now. */
export type SettleQuickly = { currency?: string };

/** Why it was made. */
export type SettlementKind = "day" | "quick";

/** One movement of a settlement: what it was, whose, and what it changed. */
export type SettlementLineView = { seq: number; code: string; column: string; reference: string; amount: number; day: string };

/** Whether the merchant has the money. */
export type SettlementState = "closed" | "drawn" | "paid" | "returned" | "unpaid";

/** A settlement as the API and the webhooks show it. */
export type SettlementView = { id: string; object: "settlement"; mode: Mode; day: string; currency: string; kind: SettlementKind; opening: number; gross: number; fees: number; refunds: number; fees_returned: number; other: number; due: number; reserved: number; quick_fee: number; payable: number; carried: number; line_count: number; status: SettlementState; closed_at?: string; reserve_until?: string; payout_id?: string };

/** Where one receiver's share stands. */
export type ShareState = "cancelled" | "failed" | "held" | "pending" | "succeeded";

/** One receiver's share as the API and the webhooks show it. */
export type ShareView = { id: string; receiver_id: string; amount: number; status: ShareState; amount_returned: number; code?: string };

/** Draw it as a QR code for the customer to scan. */
export type ShowQr = { type: "show_qr"; code_url: string };

/** Agree to the terms in force, named by version and hash, in the name of ``signer``. */
export type SignTerms = { version: number; sha256: string; signer: string; method: "click" | "face" | "paper" | "sms_code"; reference?: string; address?: string };

/** One version that was agreed to. */
export type SignatureView = { version: number; sha256: string; signer: string; signed_at: string };

/** How a message is signed, by its name in RFC 9421 §6.2.2; SM2's is our own. */
export type SigningAlgorithm = "ecdsa-p256-sha256" | "ed25519" | "hmac-sha256" | "rsa-pss-sha512" | "sm2-sm3";

/** A variant with its stock; without counting, all of that is zero. */
export type SkuView = { id: string; object: "sku"; code: string; name: string; price: number; currency: string; is_counted: boolean; available: number; reserved: number; sold: number };

/** A share on its way back, or come back. */
export type SplitReturnView = { id: string; object: "split_return"; mode: Mode; payment_id: string; split_id: string; share_id: string; merchant_return_no: string; amount: number; status: ReturnState; version: number; created_at: string; refund_id?: string; code?: string; ended_at?: string };

/** Where a split stands; the last two are ends. */
export type SplitState = "cancelled" | "ended" | "held" | "pending" | "requested" | "unknown";

/** A split as the API and the webhooks show it. */
export type SplitView = { id: string; object: "split"; mode: Mode; payment_id: string; merchant_split_no: string; kind: "finish" | "shares"; side: "book" | "channel"; amount: number; currency: string; status: SplitState; releases: "at" | "later" | "now"; shares: Array<ShareView>; version: number; created_at: string; release_at?: string; code?: string; ended_at?: string };

/** What a person did at a till; ``object_id`` is the payment's, or the refund's. */
export type StaffActView = { object: "staff_act"; staff_id: string; act: TillAct; object_id: string; at: string };

/** What a person of a merchant's is there for. */
export type StaffRole = "accountant" | "cashier" | "manager" | "owner";

/** A person as the merchant sees them; ``may`` is what the role includes. */
export type StaffView = { id: string; object: "staff"; mode: Mode; role: StaffRole; may: Array<string>; name: string; phone: string; every_store: boolean; store_ids: Array<string>; status: "active" | "left" | "suspended"; created_at: string; left_at?: string };

/** Where an application stands. */
export type State = "created" | "ended" | "expired" | "in_progress" | "opened" | "refused";

/** How a paper is wanted. */
export type StatementFormat = "csv" | "pdf" | "xlsx";

/** The charge from an amount of the payment, and a volume of the month before it, on. */
export type Step = { rate_ppm: number; fixed?: number; fee_min?: number; fee_max?: number | null; amount_from?: number; volume_from?: number };

/** A store as its merchant sees it. */
export type StoreView = { id: string; object: "store"; mode: Mode; store_no: string; name: string; place: Place; status: "closed" | "open"; created_at: string };

/** Let the customer's browser post these fields there. */
export type SubmitForm = { type: "submit_form"; url: string; fields: Record<string, string> };

/** Whether guests may order. */
export type TabState = "closed" | "open";

/** A tab with its dishes. */
export type TabView = { id: string; object: "tab"; mode: Mode; table_id: string; status: TabState; opened_at: string; dishes?: Array<DishView>; closed_at?: string };

/** A table as its merchant sees it; ``url`` is what its printed code says. */
export type TableView = { id: string; object: "dining_table"; mode: Mode; name: string; status: "active" | "revoked"; url: string; image_url: string; created_at: string };

/** Where a terminal is in its life. */
export type TerminalState = "bound" | "retired" | "stock" | "stolen" | "suspended";

/** A terminal as its merchant sees it, in the API and in webhooks. */
export type TerminalView = { id: string; object: "terminal"; mode: Mode; serial: string; model: string; name: string; status: TerminalState; online: boolean; parameters_version: number; store_id?: string; plate_id?: string; last_seen_at?: string; firmware?: string; battery?: number; signal?: number; reported_parameters_version?: number };

/** The terms in force, at most one version of them. */
export type TermsInForce = { items: Array<TermsView> };

/** The terms in force; ``sha256`` is of ``content`` in UTF-8. */
export type TermsView = { object: "merchant_terms"; version: number; title: string; sha256: string; content: string; in_force_from: string };

/** What a person may do at a till. */
export type TillAct = "payments.call_off" | "payments.capture" | "payments.look" | "payments.take" | "payments.void" | "refunds.look" | "refunds.make";

/** Where a token is good: ways of paying, amounts in minor units, how often. Only for its owner. What is left out is not limited; no channel is the channel of cards. */
export type TokenControls = { channels?: Array<string>; pay_modes?: Array<string>; currency?: string; amount_each_max?: number | null; amount_max?: number | null; uses_max?: number | null };

/** How a token stands. */
export type TokenState = "active" | "deleted" | "replaced" | "requested" | "suspended";

/** A token as the API shows it. Its number pays nowhere but in its domain. */
export type TokenView = { id: string; object: "card_token"; card_id: string; number: string; requestor_id: string; kind: "card_on_file" | "device"; status: TokenState; assurance_method: string; payment_account_reference: string; bin: string; last4: string; controls: ControlsView; uses: number; amount_used: number; replaced_by: string | null; expires_at: string; created_at: string };

/** Put this much, in minor units, into the wallet. */
export type TopUp = { amount: number; currency?: "AED" | "AUD" | "BHD" | "BRL" | "CAD" | "CHF" | "CLP" | "CNY" | "DKK" | "EUR" | "GBP" | "HKD" | "IDR" | "INR" | "JOD" | "JPY" | "KRW" | "KWD" | "KZT" | "MOP" | "MXN" | "MYR" | "NOK" | "NZD" | "OMR" | "PHP" | "RUB" | "SAR" | "SEK" | "SGD" | "THB" | "TND" | "TWD" | "USD" | "VND" | "ZAR" };

/** Money put into a wallet, as the API and the webhooks show it. */
export type TopUpView = { id: string; object: "wallet_top_up"; wallet_id: string; amount: number; currency: string; created_at: string };

/** What is sold and where. */
export type Trade = { mcc: string; service_phone: string; store_name: string; area_code: string; address: string };

/** How far a batch is. */
export type TransferBatchState = "done" | "dropped" | "listed" | "running";

/** A batch as the API shows it; ``progress`` counts its transfers by status. */
export type TransferBatchView = { id: string; object: "transfer_batch"; mode: Mode; number: string; currency: string; count: number; amount: number; status: TransferBatchState; progress: Record<string, number>; created_at: string; ended_at?: string };

/** What became of a file: a batch that waits to be let go, or every fault of its rows. */
export type TransferFileReport = { object: "transfer_file_report"; rows: number; faults: Array<RowFault>; batch: TransferBatchView | null };

/** One transfer as the API and the webhooks show it. */
export type TransferItemView = { id: string; object: "transfer"; batch_id: string; line: number; number: string; destination: Destination; payee: string; amount: number; currency: string; note: string; status: TransferState; code?: string; channel_reference?: string; next_action?: Record<string, unknown>; ended_at?: string };

/** Where one transfer stands; the last four are ends. */
export type TransferState = "failed" | "held" | "listed" | "pending" | "refused" | "returned" | "succeeded" | "unknown";

/** How much of a payment may still be shared: as its channel says, and what was shared here. */
export type UnsplitView = { object: "unsplit_money"; payment_id: string; currency: string; amount: number; amount_shared: number };

/** Change what is given and leave the rest. */
export type UpdateEndpoint = { url?: string | null; event_types?: Array<string> | null; description?: string | null; enabled?: boolean | null; api_version?: string | null };

/** A limited-use key. ``secret`` is hex, and shown once. A cryptogram is the first 16 bytes, in hex, of HMAC-SHA-256 under the secret over the text ``tongbao cryptogram 1`` with a zero byte, and then the token's number, the counter, the amount and the currency, each as text after its length in four bytes, the highest first. */
export type UseKeyView = { object: "card_token_key"; token_id: string; number: number; algorithm: "HMAC-SHA-256"; uses_max: number; uses: number; refill_at: number; expires_at: string; secret?: string };

/** Where a visit stands. */
export type VisitState = "blocked" | "created" | "left" | "open" | "unknown";

/** An agreement as a wallet's owner sees it: who may take how much. */
export type WalletAgreementView = { id: string; object: "wallet_agreement"; mode: Mode; payee: string; display_name: string; currency: string; status: AgreementState; expires_at: string; signed_by_wallet?: boolean; limit_each?: number; period?: Period; limit_per_period?: number; limit_total?: number; payments_max?: number; signed_at?: string; ended_at?: string };

/** An application as its merchant sees it: states, and nothing of the person. */
export type WalletApplicationView = { id: string; object: "wallet_application"; mode: Mode; user_id: string; status: State; code: string | null; grants: Array<"balance" | "propose" | "statement">; each_max: number; day_max: number; currency: string; version: number; created_at: string; expires_at: string; opened_at: string | null; ended_at: string | null };

/** What a user's wallet holds now, and what of it can go out. */
export type WalletBalanceView = { object: "wallet_balance"; application_id: string; status: string; balance: number; available: number; currency: string };

/** One movement; ``change`` is below zero where money went out. */
export type WalletLineView = { kind: string; change: number; balance_after: number; at: string };

/** A link to open in the user's browser: good once, and shown this once. */
export type WalletLinkView = { object: "wallet_link"; url: string; expires_at: string };

/** Terms that a merchant has proposed and nobody has agreed to yet. */
export type WalletProgrammeTermsView = { name: string; account_class: number; grants: Array<"balance" | "propose" | "statement">; each_max: number; day_max: number; return_urls: Array<string> };

/** A programme as its merchant sees it. */
export type WalletProgrammeView = { id: string; object: "wallet_programme"; mode: Mode; name: string; account_class: number; grants: Array<"balance" | "propose" | "statement">; each_max: number; day_max: number; currency: string; return_urls: Array<string>; status: ProgrammeState; waiting: WalletProgrammeTermsView | null; created_at: string };

/** A proposal as its merchant sees it. */
export type WalletProposalView = { id: string; object: "wallet_proposal"; mode: Mode; application_id: string; merchant_proposal_no: string; kind: "payment" | "top_up" | "transfer" | "withdrawal"; amount: number; currency: string; payee: string | null; purpose: string; status: ProposalState; code: string | null; version: number; created_at: string; expires_at: string; ended_at: string | null };

/** A merchant's code as a wallet's owner sees it: nothing of it is the merchant's alone. */
export type WalletQrView = { object: "wallet_qr"; payment_id: string; mode: Mode; payee: string; subject: string; amount: number; currency: string; status: QrStatus; expires_at: string; paid_at?: string; paid_by_wallet?: boolean };

/** Whether money may leave the wallet. */
export type WalletState = "active" | "frozen";

/** A wallet as the merchant that opened it sees it. */
export type WalletView = { id: string; object: "wallet"; mode: Mode; holder_name: string; currency: string; status: WalletState; balance: number; available: number; daily_limit: number; created_at: string };

/** A webhook endpoint; the secret is there only in the answer that made it. */
export type WebhookEndpointView = { id: string; mode: Mode; url: string; description: string; event_types: Array<string>; state: EndpointState; disabled_because: DisabledBecause | null; public_keys: Array<string>; secret: string | null; created_at: string; api_version: string | null };

/** The merchant who asks for our orders together with theirs. */
export type WhoCombines = { merchant_id: string };

/** What each operation, by method and path, takes and returns. */
export interface Operations {
  /** Return agreements, newest first, by status or the merchant's agreement number. */
  "GET /v1/agreements": { query: { status?: AgreementState | null; merchant_agreement_no?: string | null; cursor?: string; limit?: number }; reply: Page_AgreementView };
  /** Offer an agreement. */
  "POST /v1/agreements": { body: CreateAgreement; reply: AgreementView };
  /** Return one agreement. */
  "GET /v1/agreements/{agreement_id}": { path: { agreement_id: string }; reply: AgreementView };
  /** Have the channel (WeChat Pay) tell the customer what will be taken; some plans want it first. */
  "POST /v1/agreements/{agreement_id}/announcements": { path: { agreement_id: string }; body: AnnounceDeduction; reply: AnnouncementView };
  /** End an agreement, at the channel first; nothing is taken under it from now on. */
  "POST /v1/agreements/{agreement_id}/end": { path: { agreement_id: string }; reply: AgreementView };
  /** Return the merchant's keys of this mode, newest first, without their secrets. */
  "GET /v1/api_keys": { query: { cursor?: string; limit?: number }; reply: Page_ApiKeyView };
  /** Return one key, without its secret. */
  "GET /v1/api_keys/{key_id}": { path: { key_id: string }; reply: ApiKeyView };
  /** End a key at once; safe to repeat. */
  "POST /v1/api_keys/{key_id}/revoke": { path: { key_id: string }; reply: ApiKeyView };
  /** Replace a key by one with the same scopes, and show the new secret once. */
  "POST /v1/api_keys/{key_id}/roll": { path: { key_id: string }; body: RollApiKey; reply: ApiKeyView };
  /** Return the applications the caller made, newest first. */
  "GET /v1/applications": { query: { status?: ApplicationState | null; cursor?: string; limit?: number }; reply: Page_ApplicationView };
  /** Begin an application. Its numbers are checked now, its documents when it is submitted. */
  "POST /v1/applications": { body: CreateApplication; reply: ApplicationView };
  /** Return one application. */
  "GET /v1/applications/{application_id}": { path: { application_id: string }; reply: ApplicationView };
  /** Replace what a draft says; of an opened merchant, what its channels found wrong. */
  "POST /v1/applications/{application_id}/amend": { path: { application_id: string }; body: ApplicationBody; reply: ApplicationView };
  /** Add a picture, kept encrypted. Sending the same again changes nothing. */
  "POST /v1/applications/{application_id}/documents": { path: { application_id: string }; body: AddDocument; reply: DocumentView };
  /** Add a document that is a body of its own, kept encrypted while it comes. */
  "POST /v1/applications/{application_id}/files": { path: { application_id: string }; query: { kind: DocumentKind }; body: Uint8Array; reply: DocumentView };
  /** Hand out the opened merchant's first key, once. When the answer is lost, roll the key. */
  "POST /v1/applications/{application_id}/first_key": { path: { application_id: string }; reply: FirstKey };
  /** Return how the application stands at each of its channels. */
  "GET /v1/applications/{application_id}/registrations": { path: { application_id: string }; reply: Registrations };
  /** Agree to the terms in force; of the same version a second time changes nothing. */
  "POST /v1/applications/{application_id}/signatures": { path: { application_id: string }; body: SignTerms; reply: SignatureView };
  /** Hand the application in; one that is in already is returned as it is. */
  "POST /v1/applications/{application_id}/submit": { path: { application_id: string }; reply: ApplicationView };
  /** Take the application back; safe to repeat. */
  "POST /v1/applications/{application_id}/withdraw": { path: { application_id: string }; reply: ApplicationView };
  /** Return what the merchant is owed: available, held by refunds, on its way to the bank. */
  "GET /v1/balance": { reply: BalanceView };
  /** Ask a card's issuer what the card has. */
  "POST /v1/card_balances": { body: AskBalance; reply: CardBalancesView };
  /** Return the tokens, newest first, those of one card where it is named. */
  "GET /v1/card_tokens": { query: { card_id?: string | null; cursor?: string; limit?: number }; reply: Page_TokenView };
  /** Return a token, and how much of its limits is used. */
  "GET /v1/card_tokens/{token_id}": { path: { token_id: string }; reply: TokenView };
  /** Let a token pay, and say how the card's holder was verified. Safe to repeat. */
  "POST /v1/card_tokens/{token_id}/activate": { path: { token_id: string }; body: ActivateToken; reply: TokenView };
  /** End a token for good. Safe to repeat. */
  "POST /v1/card_tokens/{token_id}/delete": { path: { token_id: string }; reply: TokenView };
  /** Give the token's device its next limited-use key. Its secret is shown in this answer only. */
  "POST /v1/card_tokens/{token_id}/keys": { path: { token_id: string }; body: GiveUseKey; reply: UseKeyView };
  /** Give a token another number, and end this one: its limits, and what is used of them, stay. */
  "POST /v1/card_tokens/{token_id}/replace": { path: { token_id: string }; reply: TokenView };
  /** Let a suspended token pay again. Safe to repeat. */
  "POST /v1/card_tokens/{token_id}/resume": { path: { token_id: string }; reply: TokenView };
  /** Let a token pay nothing for now, as when a device is lost. Safe to repeat. */
  "POST /v1/card_tokens/{token_id}/suspend": { path: { token_id: string }; reply: TokenView };
  /** Return checkouts, newest first. */
  "GET /v1/checkouts": { query: { merchant_order_no?: string | null; cursor?: string; limit?: number }; reply: Page_CheckoutView };
  /** Open a checkout and get the address of its page. */
  "POST /v1/checkouts": { body: OpenCheckout; reply: CheckoutView };
  /** Return one checkout. */
  "GET /v1/checkouts/{checkout_id}": { path: { checkout_id: string }; reply: CheckoutView };
  /** Call a checkout off: nothing more can be paid on it, the latest try closed first. */
  "POST /v1/checkouts/{checkout_id}/close": { path: { checkout_id: string }; reply: CheckoutView };
  /** Return combined payments, newest first, or the one with the merchant's number. */
  "GET /v1/combined_payments": { query: { merchant_combined_no?: string | null; cursor?: string; limit?: number }; reply: Page_CombinedPaymentView };
  /** Have several orders paid in one go. */
  "POST /v1/combined_payments": { body: CreateCombined; reply: CombinedPaymentView };
  /** Return one combined payment. */
  "GET /v1/combined_payments/{combined_id}": { path: { combined_id: string }; reply: CombinedPaymentView };
  /** Call all orders of a combined payment off, at the channel first. */
  "POST /v1/combined_payments/{combined_id}/close": { path: { combined_id: string }; reply: CombinedPaymentView };
  /** Return who may combine our orders with theirs, in the order we agreed; at most 500. */
  "GET /v1/combining_consents": { reply: Page_ConsentView };
  /** Let another merchant combine our orders with theirs; return all who may. Safe to repeat. */
  "POST /v1/combining_consents": { body: WhoCombines; reply: Page_ConsentView };
  /** Let another merchant combine our orders no more; return all who still may. Safe to repeat. */
  "POST /v1/combining_consents/withdraw": { body: WhoCombines; reply: Page_ConsentView };
  /** Return what the caller earned as an agent, newest first. */
  "GET /v1/commissions": { query: { cursor?: string; limit?: number }; reply: Page_CommissionView };
  /** Return the fees that a commission comes from, in the order of the book. */
  "GET /v1/commissions/{commission_id}/lines": { path: { commission_id: string }; query: { cursor?: string }; reply: Page_CommissionLineView };
  /** Return a picture that a customer sent along. */
  "GET /v1/complaint_images/{image_id}": { path: { image_id: string }; reply: ImageContentView };
  /** Return customers' complaints, newest first, by status or payment. */
  "GET /v1/complaints": { query: { status?: ComplaintState | null; payment_id?: string | null; cursor?: string; limit?: number }; reply: Page_ComplaintView };
  /** Return one complaint. */
  "GET /v1/complaints/{complaint_id}": { path: { complaint_id: string }; reply: ComplaintView };
  /** Hand in a picture for an answer; it goes to the customer once an answer names it. */
  "POST /v1/complaints/{complaint_id}/files": { path: { complaint_id: string }; body: HandIn; reply: FileView };
  /** Return the pictures that the customer sent along, oldest first. */
  "GET /v1/complaints/{complaint_id}/images": { path: { complaint_id: string }; reply: Array<ImageView> };
  /** Return what customer, merchant and channel said, oldest first. */
  "GET /v1/complaints/{complaint_id}/messages": { path: { complaint_id: string }; reply: Array<MessageView> };
  /** Answer the customer through the channel, once; with ``complete``, close the complaint. */
  "POST /v1/complaints/{complaint_id}/replies": { path: { complaint_id: string }; body: ReplyToComplaint; reply: ReplyView };
  /** Charge the code a customer shows for an amount keyed in, as an order without goods. */
  "POST /v1/counter_sales": { body: SellAtCounter; reply: OrderView };
  /** Return the tables, newest first, those given up included. */
  "GET /v1/dining_tables": { query: { cursor?: string; limit?: number }; reply: Page_TableView };
  /** Make a table whose printed code opens the menu, for all who sit there. */
  "POST /v1/dining_tables": { body: MakeTable; reply: TableView };
  /** Give a table's code up for good. Safe to repeat. */
  "POST /v1/dining_tables/{table_id}/revoke": { path: { table_id: string }; reply: TableView };
  /** Return what the kitchen has to do, newest first; by status. */
  "GET /v1/dishes": { query: { status?: DishState | null; cursor?: string; limit?: number }; reply: Page_DishView };
  /** Say where a dish is: it goes forward, or is cancelled before its bill. Safe to repeat. */
  "POST /v1/dishes/{dish_id}/move": { path: { dish_id: string }; body: MoveDish; reply: DishView };
  /** Return disputes, newest first, by payment, status or the scheme's number. */
  "GET /v1/disputes": { query: { payment_id?: string | null; status?: DisputeState | null; scheme_ref?: string | null; cursor?: string; limit?: number }; reply: Page_DisputeView };
  /** Return one dispute. */
  "GET /v1/disputes/{dispute_id}": { path: { dispute_id: string }; reply: DisputeView };
  /** Give the disputed money up: it goes to the customer for good. */
  "POST /v1/disputes/{dispute_id}/accept": { path: { dispute_id: string }; body: AcceptDispute; reply: DisputeView };
  /** Hand in the answer to a retrieval request, chargeback or pre-arbitration. */
  "POST /v1/disputes/{dispute_id}/answer": { path: { dispute_id: string }; body: AnswerDispute; reply: DisputeView };
  /** Return what was handed in for a dispute, oldest first. */
  "GET /v1/disputes/{dispute_id}/files": { path: { dispute_id: string }; reply: Array<FileView> };
  /** Hand in a file for the answer; it cannot be changed or taken back. */
  "POST /v1/disputes/{dispute_id}/files": { path: { dispute_id: string }; body: HandIn; reply: FileView };
  /** Return events, newest first, by type, by the thing they are about, by time (half-open). */
  "GET /v1/events": { query: { type?: string | null; resource_id?: string | null; created_from?: string | null; created_to?: string | null; cursor?: string; limit?: number }; reply: Page_EventView };
  /** Return one event, as its webhook told it. */
  "GET /v1/events/{event_id}": { path: { event_id: string }; reply: EventView };
  /** Return the merchant's own profile: channels, prices in force, bank account. */
  "GET /v1/merchant": { reply: MerchantView };
  /** Return the terms that are in force, to be read and signed; none: nothing is to be signed. */
  "GET /v1/merchant_terms": { reply: TermsInForce };
  /** End a phone's key at once: its codes pay no more. Safe to repeat. */
  "POST /v1/offline_keys/{offline_key_id}/revoke": { path: { offline_key_id: string }; reply: OfflineKeyView };
  /** Return what customers think, the newest order first. */
  "GET /v1/order_reviews": { query: { cursor?: string; limit?: number }; reply: Page_ReviewView };
  /** Return orders, newest first, by status, number or time; without their lines. */
  "GET /v1/orders": { query: { status?: OrderState | null; merchant_order_no?: string | null; created_from?: string | null; created_to?: string | null; cursor?: string; limit?: number }; reply: Page_OrderView };
  /** Place an order: its goods are reserved, and ``url`` is where the customer pays it. */
  "POST /v1/orders": { body: PlaceOrder; reply: OrderView };
  /** Return orders as lines of CSV, newest first, a page at a time, for a spreadsheet. */
  "GET /v1/orders/export": { query: { status?: OrderState | null; created_from?: string | null; created_to?: string | null; cursor?: string; limit?: number }; reply: OrderExport };
  /** Return one order with its lines, and where it is paid while it can be. */
  "GET /v1/orders/{order_id}": { path: { order_id: string }; reply: OrderView };
  /** Call an unpaid order off and put its goods back. A customer who paid first wins. */
  "POST /v1/orders/{order_id}/cancel": { path: { order_id: string }; reply: OrderView };
  /** Say that the customer has the goods. Safe to repeat. */
  "POST /v1/orders/{order_id}/fulfil": { path: { order_id: string }; reply: OrderView };
  /** Return what was given back of an order, oldest first; all of it on one page. */
  "GET /v1/orders/{order_id}/refunds": { path: { order_id: string }; reply: Page_OrderRefundView };
  /** Give pieces of a paid order back: the payment is refunded, the goods go on the shelf again. */
  "POST /v1/orders/{order_id}/refunds": { path: { order_id: string }; body: RefundOrder; reply: OrderRefundView };
  /** Keep what the customer thinks of a paid order, once. */
  "POST /v1/orders/{order_id}/review": { path: { order_id: string }; body: ReviewOrder; reply: ReviewView };
  /** Ask, before the car comes, whether its fees can be taken without its driver's doing. */
  "POST /v1/parking_plates/look_up": { body: LookUpPlate; reply: ParkingPlateView };
  /** Return visits, newest first, by status or the merchant's number. */
  "GET /v1/parking_visits": { query: { merchant_visit_no?: string | null; status?: VisitState | null; cursor?: string; limit?: number }; reply: Page_ParkingVisitView };
  /** Say that a car drove in, and learn whether its fee can be taken on leaving. */
  "POST /v1/parking_visits": { body: EnterCarPark; reply: ParkingVisitView };
  /** Return one visit. */
  "GET /v1/parking_visits/{visit_id}": { path: { visit_id: string }; reply: ParkingVisitView };
  /** Take the fee of a visit: a payment like any other, which is queried and given back as such. */
  "POST /v1/parking_visits/{visit_id}/charge": { path: { visit_id: string }; body: ChargeVisit; reply: PaymentView };
  /** Say that the car drove out; a channel that wants to hear it is told. */
  "POST /v1/parking_visits/{visit_id}/leave": { path: { visit_id: string }; body: LeaveCarPark; reply: ParkingVisitView };
  /** Return payments, newest first. */
  "GET /v1/payments": { query: { merchant_order_no?: string | null; status?: PaymentState | null; channel?: string | null; created_from?: string | null; created_to?: string | null; metadata?: string | null; cursor?: string; limit?: number }; reply: Page_PaymentView };
  /** Collect a payment. */
  "POST /v1/payments": { body: CreatePayment; reply: PaymentView };
  /** Return one payment. */
  "GET /v1/payments/{payment_id}": { path: { payment_id: string }; reply: PaymentView };
  /** Take what was set aside, or a part of it, once; the channel frees the rest. */
  "POST /v1/payments/{payment_id}/capture": { path: { payment_id: string }; body: CapturePayment; reply: PaymentView };
  /** Call an unpaid payment off, at the channel first. */
  "POST /v1/payments/{payment_id}/close": { path: { payment_id: string }; reply: PaymentView };
  /** Finish the sharing of a payment: the rest is yours, and the channel frees it. */
  "POST /v1/payments/{payment_id}/finish_splits": { path: { payment_id: string }; body: FinishSplits; reply: SplitView };
  /** Return the proof that the payment's postings are in the book, for ever. */
  "GET /v1/payments/{payment_id}/receipt": { path: { payment_id: string }; reply: Receipt };
  /** Give money back, in part or in full. */
  "POST /v1/payments/{payment_id}/refunds": { path: { payment_id: string }; body: CreateRefund; reply: RefundView };
  /** Return every split of a payment, and every share that came back or is to. */
  "GET /v1/payments/{payment_id}/splits": { path: { payment_id: string }; reply: PaymentShares };
  /** Share a payment with receivers of this platform, or of the channel that collected it. */
  "POST /v1/payments/{payment_id}/splits": { path: { payment_id: string }; body: CreateSplit; reply: SplitView };
  /** Ask the channel (WeChat Pay) how much of a payment may still be shared. */
  "POST /v1/payments/{payment_id}/unsplit_money": { path: { payment_id: string }; reply: UnsplitView };
  /** Let go what was set aside; nothing is collected. */
  "POST /v1/payments/{payment_id}/void": { path: { payment_id: string }; reply: PaymentView };
  /** Return payouts, newest first, of one status or settlement if asked. */
  "GET /v1/payouts": { query: { status?: PayoutState | null; settlement_id?: string | null; cursor?: string; limit?: number }; reply: Page_PayoutView };
  /** Return one payout. */
  "GET /v1/payouts/{payout_id}": { path: { payout_id: string }; reply: PayoutView };
  /** Return the electronic receipt of a payout that succeeded. */
  "GET /v1/payouts/{payout_id}/receipt": { path: { payout_id: string }; reply: PayoutReceiptView };
  /** Return the merchant's plates, newest first, those revoked included. */
  "GET /v1/plates": { query: { cursor?: string; limit?: number }; reply: Page_PlateView };
  /** Make a code plate: an address to print as a QR code, the same for every customer. */
  "POST /v1/plates": { body: MakePlate; reply: PlateView };
  /** Return one plate. */
  "GET /v1/plates/{plate_id}": { path: { plate_id: string }; reply: PlateView };
  /** Give a plate up for good: its code opens nothing any more. Safe to repeat. */
  "POST /v1/plates/{plate_id}/revoke": { path: { plate_id: string }; reply: PlateView };
  /** Return every version of the merchant's prices, those to come included. */
  "GET /v1/price-plans": { reply: PricePlans };
  /** Return what a payment of this amount, in minor units, would cost if it began now. */
  "GET /v1/price-quote": { query: { channel: string; pay_mode: string; amount: number; currency?: string; card?: CardKind }; reply: PriceQuoteView };
  /** Return products with their variants and stock, newest first. */
  "GET /v1/products": { query: { category?: string | null; on_shelf?: boolean | null; cursor?: string; limit?: number }; reply: Page_ProductView };
  /** Put a product with its variants into the catalogue. */
  "POST /v1/products": { body: MakeProduct; reply: ProductView };
  /** Return one product with its variants and stock. */
  "GET /v1/products/{product_id}": { path: { product_id: string }; reply: ProductView };
  /** Change what is said of a product, or take it off the shelf. Safe to repeat. */
  "PATCH /v1/products/{product_id}": { path: { product_id: string }; body: ChangeProduct; reply: ProductView };
  /** Add a variant to a product. */
  "POST /v1/products/{product_id}/skus": { path: { product_id: string }; body: MakeSku; reply: SkuView };
  /** Return red packets, newest first; those one wallet sent, with ``wallet_id``. */
  "GET /v1/red_packets": { query: { wallet_id?: string | null; cursor?: string; limit?: number }; reply: Page_RedPacketView };
  /** Fill a red packet from a wallet. Its wallets and those that grab are of one merchant. */
  "POST /v1/red_packets": { body: SendRedPacket; reply: RedPacketView };
  /** Return one red packet. */
  "GET /v1/red_packets/{red_packet_id}": { path: { red_packet_id: string }; reply: RedPacketView };
  /** Return who took which part, in the order they came. */
  "GET /v1/red_packets/{red_packet_id}/grabs": { path: { red_packet_id: string }; query: { cursor?: string; limit?: number }; reply: Page_GrabView };
  /** Take a part: one for each wallet, whoever comes first. Safe to repeat without a key. */
  "POST /v1/red_packets/{red_packet_id}/grabs": { path: { red_packet_id: string }; body: Grab; reply: GrabAnswer };
  /** Return refunds, newest first, by payment, status or the merchant's refund number. */
  "GET /v1/refunds": { query: { payment_id?: string | null; status?: RefundState | null; merchant_refund_no?: string | null; cursor?: string; limit?: number }; reply: Page_RefundView };
  /** Return one refund. */
  "GET /v1/refunds/{refund_id}": { path: { refund_id: string }; reply: RefundView };
  /** Return where a stuck refund was sent. */
  "GET /v1/refunds/{refund_id}/redirection": { path: { refund_id: string }; reply: RedirectionView };
  /** Send a stuck refund somewhere else. */
  "POST /v1/refunds/{refund_id}/redirection": { path: { refund_id: string }; body: SendRefundElsewhere; reply: RedirectionView };
  /** Return how an application stands at one channel. */
  "GET /v1/registrations/{registration_id}": { path: { registration_id: string }; reply: RegistrationView };
  /** Send what a channel rejected again, corrected by amending the application before. */
  "POST /v1/registrations/{registration_id}/send_again": { path: { registration_id: string }; reply: RegistrationView };
  /** Return the merchant's own requests, newest first, by what they asked and how it went. */
  "GET /v1/request_log": { query: { method?: string | null; route?: string | null; status?: number | null; code?: string | null; key_id?: string | null; created_from?: string | null; created_to?: string | null; cursor?: string; limit?: number }; reply: Page_RequestView };
  /** Return one request of the merchant's own. */
  "GET /v1/request_log/{request_id}": { path: { request_id: string }; reply: RequestView };
  /** Send a logged request once more, under this key and its rights. */
  "POST /v1/request_log/{request_id}/replay": { path: { request_id: string }; reply: ReplayView };
  /** Return settlements, newest first, of one day or currency if asked. */
  "GET /v1/settlements": { query: { day?: string | null; currency?: string | null; cursor?: string; limit?: number }; reply: Page_SettlementView };
  /** Settle what is there so far and pay it out at once, for the agreed fee (D+0). */
  "POST /v1/settlements/quick": { body: SettleQuickly; reply: SettlementView };
  /** Return one settlement. */
  "GET /v1/settlements/{settlement_id}": { path: { settlement_id: string }; reply: SettlementView };
  /** Return every movement a settlement is made of, in the ledger's order. */
  "GET /v1/settlements/{settlement_id}/lines": { path: { settlement_id: string }; query: { cursor?: string; limit?: number }; reply: Page_SettlementLineView };
  /** Return a settlement's statement as a file: CSV, XLSX or PDF. */
  "GET /v1/settlements/{settlement_id}/statement": { path: { settlement_id: string }; query: { layout?: StatementFormat }; reply: PaperView };
  /** Change what a variant costs; orders keep the price they were placed at. Safe to repeat. */
  "POST /v1/skus/{sku_id}/price": { path: { sku_id: string }; body: ChangePrice; reply: SkuView };
  /** Put pieces on the shelf, or take away some that no order has. */
  "POST /v1/skus/{sku_id}/stock": { path: { sku_id: string }; body: AdjustStock; reply: SkuView };
  /** Return the merchant's receivers, newest first. */
  "GET /v1/split_receivers": { query: { cursor?: string; limit?: number }; reply: Page_ReceiverView };
  /** Bind a receiver; at a channel it is binding until the channel has said yes. */
  "POST /v1/split_receivers": { body: BindReceiver; reply: ReceiverView };
  /** Let a receiver have no more shares; those on their way stay theirs. */
  "POST /v1/split_receivers/{receiver_id}/unbind": { path: { receiver_id: string }; reply: ReceiverView };
  /** Return one split. */
  "GET /v1/splits/{split_id}": { path: { split_id: string }; reply: SplitView };
  /** Call off a split that is held; what was held is yours again. */
  "POST /v1/splits/{split_id}/cancel": { path: { split_id: string }; reply: SplitView };
  /** Give the shares of a split that is held. */
  "POST /v1/splits/{split_id}/release": { path: { split_id: string }; reply: SplitView };
  /** Take a share back from its receiver, in part or in full. */
  "POST /v1/splits/{split_id}/returns": { path: { split_id: string }; body: ReturnShare; reply: SplitReturnView };
  /** Return the merchant's people, newest first. */
  "GET /v1/staff": { query: { cursor?: string; limit?: number }; reply: Page_StaffView };
  /** Add one of the merchant's people. */
  "POST /v1/staff": { body: AddStaff; reply: StaffView };
  /** Return one person. */
  "GET /v1/staff/{staff_id}": { path: { staff_id: string }; reply: StaffView };
  /** Say what the person is there for from now on; safe to repeat. */
  "POST /v1/staff/{staff_id}": { path: { staff_id: string }; body: ChangeStaff; reply: StaffView };
  /** Return what a person did at tills, newest first: each is on record with what it did. */
  "GET /v1/staff/{staff_id}/acts": { path: { staff_id: string }; query: { cursor?: string; limit?: number }; reply: Page_StaffActView };
  /** Let the person leave; safe to repeat. */
  "POST /v1/staff/{staff_id}/leave": { path: { staff_id: string }; reply: StaffView };
  /** Make the code with which a person chooses a PIN at a terminal. It replaces an earlier code. */
  "POST /v1/staff/{staff_id}/pin_codes": { path: { staff_id: string }; reply: PinCodeView };
  /** Let the person work again, with the PIN they have. Safe to repeat. */
  "POST /v1/staff/{staff_id}/resume": { path: { staff_id: string }; reply: StaffView };
  /** Let the person do nothing for a while; they are out of every till at once. Safe to repeat. */
  "POST /v1/staff/{staff_id}/suspend": { path: { staff_id: string }; reply: StaffView };
  /** Return the merchant's stores, newest first. */
  "GET /v1/stores": { query: { cursor?: string; limit?: number }; reply: Page_StoreView };
  /** Open a store under a number of the merchant's own. */
  "POST /v1/stores": { body: OpenStore; reply: StoreView };
  /** Return one store. */
  "GET /v1/stores/{store_id}": { path: { store_id: string }; reply: StoreView };
  /** Say what the store is from now on; safe to repeat. */
  "POST /v1/stores/{store_id}": { path: { store_id: string }; body: ChangeStore; reply: StoreView };
  /** Return the tabs of tables, newest first; without their dishes. */
  "GET /v1/tabs": { query: { status?: TabState | null; cursor?: string; limit?: number }; reply: Page_TabView };
  /** Return one tab with its dishes. */
  "GET /v1/tabs/{tab_id}": { path: { tab_id: string }; reply: TabView };
  /** Make an order of what is unpaid on a tab, or of one guest's part; ``url`` is where to pay. */
  "POST /v1/tabs/{tab_id}/bills": { path: { tab_id: string }; body: BillTab; reply: OrderView };
  /** Close a tab whose guests have gone; what is unpaid is cancelled. Safe to repeat. */
  "POST /v1/tabs/{tab_id}/close": { path: { tab_id: string }; reply: TabView };
  /** Return the merchant's terminals, the newest first. */
  "GET /v1/terminals": { query: { status?: TerminalState | null; serial?: string | null; cursor?: string; limit?: number }; reply: Page_TerminalView };
  /** Return one terminal: where it stands, and what it said of itself last. */
  "GET /v1/terminals/{terminal_id}": { path: { terminal_id: string }; reply: TerminalView };
  /** Make the code with which a terminal gets its key. It replaces an earlier code. */
  "POST /v1/terminals/{terminal_id}/activation_codes": { path: { terminal_id: string }; reply: ActivationCodeView };
  /** Return a terminal's limits and what counts against them today. */
  "GET /v1/terminals/{terminal_id}/limits": { path: { terminal_id: string }; reply: LimitsView };
  /** Set what a terminal may take; what is left out is unlimited. Safe to repeat. */
  "POST /v1/terminals/{terminal_id}/limits": { path: { terminal_id: string }; body: SetLimits; reply: LimitsView };
  /** Return the versions of what a terminal is to do, latest first; the fifty last. */
  "GET /v1/terminals/{terminal_id}/parameters": { path: { terminal_id: string }; reply: Page_ParametersView };
  /** Tell a terminal what to do otherwise than its template; it fetches them on its heartbeat. */
  "POST /v1/terminals/{terminal_id}/parameters": { path: { terminal_id: string }; body: SetParameters; reply: TerminalView };
  /** Give a terminal back what an old version said, as a new version. */
  "POST /v1/terminals/{terminal_id}/parameters/roll_back": { path: { terminal_id: string }; body: RollBack; reply: TerminalView };
  /** Say where a terminal stands. What is left out it does not have any more. Safe to repeat. */
  "POST /v1/terminals/{terminal_id}/place": { path: { terminal_id: string }; body: PlaceTerminal; reply: TerminalView };
  /** Say that a terminal was stolen: its key ends at once, and it is the merchant's no more. */
  "POST /v1/terminals/{terminal_id}/report_stolen": { path: { terminal_id: string }; body: Reason; reply: undefined };
  /** Let a suspended terminal work again. Safe to repeat. */
  "POST /v1/terminals/{terminal_id}/resume": { path: { terminal_id: string }; body: Reason; reply: TerminalView };
  /** Let a terminal take no payments and tell nothing for a while. Safe to repeat. */
  "POST /v1/terminals/{terminal_id}/suspend": { path: { terminal_id: string }; body: Reason; reply: TerminalView };
  /** Return business time. */
  "GET /v1/test_helpers/clock": { reply: ClockView };
  /** Move business time forward for the whole deployment; what becomes due runs at once. */
  "POST /v1/test_helpers/clock/advance": { body: AdvanceClock; reply: ClockView };
  /** Have the customer's bank dispute a sandbox payment, once each; safe to repeat. */
  "POST /v1/test_helpers/payments/{payment_id}/dispute": { path: { payment_id: string }; body: RaiseDispute; reply: DisputeView };
  /** Settle what a sandbox merchant has so far and pay it out, without waiting for its day. */
  "POST /v1/test_helpers/settlements": { body: SettleQuickly; reply: SettlementView };
  /** Put sandbox money into a wallet, as if the customer had paid it in at a bank. */
  "POST /v1/test_helpers/wallets/{wallet_id}/top_up": { path: { wallet_id: string }; body: TopUp; reply: TopUpView };
  /** Return the merchant's batches of transfers, newest first. */
  "GET /v1/transfer-batches": { query: { cursor?: string; limit?: number }; reply: Page_TransferBatchView };
  /** Check a file row by row and keep it for us to let go; with a fault nothing is kept. */
  "POST /v1/transfer-batches": { body: SendTransfers; reply: TransferFileReport };
  /** Return one batch and how far it is. */
  "GET /v1/transfer-batches/{transfer_batch_id}": { path: { transfer_batch_id: string }; reply: TransferBatchView };
  /** Give a batch up that was not let go yet. */
  "POST /v1/transfer-batches/{transfer_batch_id}/drop": { path: { transfer_batch_id: string }; reply: TransferBatchView };
  /** Return the transfers of a batch in the order of its file. */
  "GET /v1/transfer-batches/{transfer_batch_id}/transfers": { path: { transfer_batch_id: string }; query: { cursor?: string; limit?: number }; reply: Page_TransferItemView };
  /** Take back a transfer that its payee has not confirmed (WeChat Pay); the money is yours again. */
  "POST /v1/transfers/{transfer_id}/take_back": { path: { transfer_id: string }; reply: TransferItemView };
  /** Return the cards, newest first, those deleted too. */
  "GET /v1/vault/cards": { query: { cursor?: string; limit?: number }; reply: Page_CardView };
  /** Keep a card's number and get its id. The same number again is the same card. */
  "POST /v1/vault/cards": { body: SaveCard; reply: CardView };
  /** Return a card: never more than its first six and last four digits. */
  "GET /v1/vault/cards/{card_id}": { path: { card_id: string }; reply: CardView };
  /** Forget a card's number and end its tokens. Safe to repeat. */
  "POST /v1/vault/cards/{card_id}/delete": { path: { card_id: string }; reply: CardView };
  /** Take the number of the card that came in place of this one; its tokens go on. */
  "POST /v1/vault/cards/{card_id}/reissue": { path: { card_id: string }; body: SaveCard; reply: CardView };
  /** Ask for a token that stands for the card. It pays once it is activated. */
  "POST /v1/vault/cards/{card_id}/tokens": { path: { card_id: string }; body: RequestToken; reply: TokenView };
  /** End an agreement that a wallet has signed, for its owner: nothing is taken any more. */
  "POST /v1/wallet_agreements/{agreement_id}/end": { path: { agreement_id: string }; reply: WalletAgreementView };
  /** Return the merchant's applications, newest first; one user's, or those of one status. */
  "GET /v1/wallet_applications": { query: { user_id?: string | null; status?: State | null; cursor?: string; limit?: number }; reply: Page_WalletApplicationView };
  /** Begin to open a wallet for one user of the merchant's; there is one for each, for ever. */
  "POST /v1/wallet_applications": { body: ApplyForWallet; reply: WalletApplicationView };
  /** Return how one application stands. */
  "GET /v1/wallet_applications/{wallet_application_id}": { path: { wallet_application_id: string }; reply: WalletApplicationView };
  /** Return what the user's wallet holds, where the user lets the merchant see it. */
  "GET /v1/wallet_applications/{wallet_application_id}/balance": { path: { wallet_application_id: string }; reply: WalletBalanceView };
  /** Return what was moved in the user's wallet, newest first, where the user lets it be seen. */
  "GET /v1/wallet_applications/{wallet_application_id}/lines": { path: { wallet_application_id: string }; query: { cursor?: string; limit?: number }; reply: Page_WalletLineView };
  /** Make a link to a page of ours; it opens once, and an earlier one ends by it. */
  "POST /v1/wallet_applications/{wallet_application_id}/links": { path: { wallet_application_id: string }; body: LinkToWallet; reply: WalletLinkView };
  /** Return the merchant's programme in this mode, if it has said its terms. */
  "GET /v1/wallet_programmes": { reply: Page_WalletProgrammeView };
  /** Say what the merchant asks its users for; in real money two people of ours admit it first. */
  "POST /v1/wallet_programmes": { body: SetWalletProgramme; reply: WalletProgrammeView };
  /** Return the merchant's proposals, newest first. */
  "GET /v1/wallet_proposals": { query: { application_id?: string | null; status?: ProposalState | null; merchant_proposal_no?: string | null; cursor?: string; limit?: number }; reply: Page_WalletProposalView };
  /** Propose a movement; nothing moves until the user agrees on a page of ours. */
  "POST /v1/wallet_proposals": { body: ProposeToWallet; reply: WalletProposalView };
  /** Return how one proposal stands. */
  "GET /v1/wallet_proposals/{wallet_proposal_id}": { path: { wallet_proposal_id: string }; reply: WalletProposalView };
  /** Make a link to agree by; it opens once, and an earlier one ends by it. */
  "POST /v1/wallet_proposals/{wallet_proposal_id}/links": { path: { wallet_proposal_id: string }; body: LinkToProposal; reply: WalletLinkView };
  /** Return the merchant's wallets, newest first. */
  "GET /v1/wallets": { query: { cursor?: string; limit?: number }; reply: Page_WalletView };
  /** Open a wallet of the platform's own. */
  "POST /v1/wallets": { body: OpenWallet; reply: WalletView };
  /** Return one wallet with its balance. */
  "GET /v1/wallets/{wallet_id}": { path: { wallet_id: string }; reply: WalletView };
  /** Return what a scanned agreement would allow: who may take how much, how often. */
  "POST /v1/wallets/{wallet_id}/agreement_scans": { path: { wallet_id: string }; body: ScanQr; reply: WalletAgreementView };
  /** Sign a scanned agreement for the wallet, once its owner has confirmed. */
  "POST /v1/wallets/{wallet_id}/agreements": { path: { wallet_id: string }; body: ScanQr; reply: WalletAgreementView };
  /** Stop spending from the wallet; money may still come back to it. Safe to repeat. */
  "POST /v1/wallets/{wallet_id}/freeze": { path: { wallet_id: string }; reply: WalletView };
  /** Return the wallet's keys for codes without network, newest first, without their secrets. */
  "GET /v1/wallets/{wallet_id}/offline_keys": { path: { wallet_id: string }; query: { cursor?: string; limit?: number }; reply: Page_OfflineKeyView };
  /** Give a phone the secret with which it makes payment codes without network, for a day. */
  "POST /v1/wallets/{wallet_id}/offline_keys": { path: { wallet_id: string }; body: GiveOfflineKey; reply: OfflineKeyView };
  /** Make a one-time code the customer can pay with for 60 seconds. */
  "POST /v1/wallets/{wallet_id}/payment_codes": { path: { wallet_id: string }; reply: PaymentCodeView };
  /** Pay a scanned code from the wallet, once its owner has confirmed. */
  "POST /v1/wallets/{wallet_id}/payments": { path: { wallet_id: string }; body: ScanQr; reply: WalletQrView };
  /** Return the parts that a wallet took, newest first. */
  "GET /v1/wallets/{wallet_id}/red_packet_grabs": { path: { wallet_id: string }; query: { cursor?: string; limit?: number }; reply: Page_GrabView };
  /** Return what a scanned code asks for: how much, who is paid, and whether it still can be. */
  "POST /v1/wallets/{wallet_id}/scans": { path: { wallet_id: string }; body: ScanQr; reply: WalletQrView };
  /** Let the wallet spend again. Safe to repeat. */
  "POST /v1/wallets/{wallet_id}/unfreeze": { path: { wallet_id: string }; reply: WalletView };
  /** Return what each try of a delivery met, oldest first: the answer to "why did it not come". */
  "GET /v1/webhook_deliveries/{delivery_id}/attempts": { path: { delivery_id: string }; reply: Page_AttemptView };
  /** Send a delivery that has ended again, from the first try. */
  "POST /v1/webhook_deliveries/{delivery_id}/replay": { path: { delivery_id: string }; reply: DeliveryView };
  /** Return the merchant's endpoints, newest first; there are at most 16. */
  "GET /v1/webhook_endpoints": { reply: Page_WebhookEndpointView };
  /** Register an address. The secret is shown in this answer and never again. */
  "POST /v1/webhook_endpoints": { body: CreateEndpoint; reply: WebhookEndpointView };
  /** Remove an endpoint and destroy its keys; the log of what was sent stays. */
  "DELETE /v1/webhook_endpoints/{endpoint_id}": { path: { endpoint_id: string }; reply: undefined };
  /** Return one endpoint. */
  "GET /v1/webhook_endpoints/{endpoint_id}": { path: { endpoint_id: string }; reply: WebhookEndpointView };
  /** Change an endpoint, or switch it off and on. */
  "PATCH /v1/webhook_endpoints/{endpoint_id}": { path: { endpoint_id: string }; body: UpdateEndpoint; reply: WebhookEndpointView };
  /** Return what was sent to an endpoint, newest first. */
  "GET /v1/webhook_endpoints/{endpoint_id}/deliveries": { path: { endpoint_id: string }; query: { status?: DeliveryState | null; cursor?: string; limit?: number }; reply: Page_DeliveryView };
  /** Issue a new key. The secret is shown in this answer and never again. */
  "POST /v1/webhook_endpoints/{endpoint_id}/rotate_key": { path: { endpoint_id: string }; body: RotateKey; reply: WebhookEndpointView };
  /** Send this endpoint, and no other, an event of type ``webhook.test``. */
  "POST /v1/webhook_endpoints/{endpoint_id}/test": { path: { endpoint_id: string }; reply: DeliveryView };
}
