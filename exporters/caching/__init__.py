"""Each policy exported once: found again by the content of all that goes into it."""
