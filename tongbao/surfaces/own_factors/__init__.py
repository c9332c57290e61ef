"""An operator's own second factors at the console: passkeys and recovery codes."""
