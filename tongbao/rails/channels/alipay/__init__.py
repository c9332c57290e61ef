"""Alipay OpenAPI (RSA2): QR and payment codes, refunds, notifications, bills."""
