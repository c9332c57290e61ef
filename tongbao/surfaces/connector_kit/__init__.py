"""The connector kit: `tongbao new-channel` begins a further payment channel."""
