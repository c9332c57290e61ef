"""The console panel: what the control API can do, for people, as pages of the sandbox itself."""
