"""UnionPay ACP 5.1.0: web and phone gateway, app, QR both ways, pre-authorisation, files."""
