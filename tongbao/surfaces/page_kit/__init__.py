"""What every page for people is made of: requests, replies, texts, files, templates, evidence."""
