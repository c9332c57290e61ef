"""Onboarding (进件): applications to become a merchant, their documents, review and opening."""
