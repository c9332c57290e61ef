"""Agents (代理商): who brings merchants, in a bounded chain, and what share each is promised."""
