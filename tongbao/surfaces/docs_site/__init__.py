"""The API reference for merchants' programmers, rendered from the OpenAPI document itself."""
