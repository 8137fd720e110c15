"""A result as plain text, for terminals, failures and people."""
