"""What a wallet's owner does beside showing payment codes: pays codes that merchants show."""
