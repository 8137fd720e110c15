"""Flow-matching policies: two halves, a schedule, and what the loop holds."""
