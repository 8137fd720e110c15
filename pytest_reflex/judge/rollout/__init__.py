"""A policy in a closed loop: it drives a simulated arm beside its reference, and what it does is compared."""
