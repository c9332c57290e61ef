"""WeChat Pay's products, one module each: what a call asks, and what its answer means."""
