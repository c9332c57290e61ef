"""What a batch of groups comes to: records, the memory of a book, and the pure decision."""
