"""The HTTP applications: admission, routing, strict decoding and answers, put together."""
