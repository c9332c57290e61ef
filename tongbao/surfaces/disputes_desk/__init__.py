"""The operators' pages of disputes, complaints and merchants' debts."""
