"""A person's own consents of the open bank: in the wallet's app, and on hosted pages."""
