"""The families of policies: what each one's own code is called with, and how it is split in two."""
