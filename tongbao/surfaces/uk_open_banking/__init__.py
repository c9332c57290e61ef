"""The open bank in the shapes of UK Open Banking 4.0: a façade over the same consents."""
