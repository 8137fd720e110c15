"""The check: fixtures through both sides, then the verdict, and what is looked for after it."""
