"""A soak: random actions by real processes on a store of their own, and invariants at the end."""
