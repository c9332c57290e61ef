"""One writer for each book: it decides in memory, commits in groups and answers afterwards."""
