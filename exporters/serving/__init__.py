"""A bundle as a service, and a service as a candidate."""
