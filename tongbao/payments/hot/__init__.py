"""The shortest way of the one payment that needs no network: the own wallet's."""
