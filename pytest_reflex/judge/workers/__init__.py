"""The fixtures of a check in several processes: what is shared, who holds it, what becomes of the lost."""
