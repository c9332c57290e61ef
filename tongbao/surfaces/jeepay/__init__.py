"""A façade for merchants who come from jeepay: its calls and notices over our payments."""
