"""WeChat Pay API v3: Native QR and payment codes, refunds, callbacks, bills."""
