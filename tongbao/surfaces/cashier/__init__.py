"""The hosted cashier: the page a customer pays on, and the page a code plate opens."""
