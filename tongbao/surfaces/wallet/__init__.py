"""The firm's own wallet app: routes for people, whose phones sign what they ask."""
