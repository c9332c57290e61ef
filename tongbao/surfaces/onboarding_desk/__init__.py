"""Console pages of onboarding: applications, what channels say of them, a merchant's standing."""
