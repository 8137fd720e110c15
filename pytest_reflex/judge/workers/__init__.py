"""The fixtures of a check in several processes: what is shared, who holds what, and what becomes of the lost."""
