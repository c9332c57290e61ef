"""Proving a book: everything stored is derived again from its journal, by code of its own."""
