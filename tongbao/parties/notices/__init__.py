"""Notices to people about their account and money: by push where a phone takes it, else by SMS."""
