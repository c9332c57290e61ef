"""Tills: people of merchants who sign in at terminals and act there, each within their role."""
