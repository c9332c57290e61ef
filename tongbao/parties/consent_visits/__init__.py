"""Visits of people who look at what they let others see and do: a browser, two factors, an end."""
