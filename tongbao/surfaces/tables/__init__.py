"""The page a restaurant table's code opens: the menu, what everybody ordered, and paying."""
