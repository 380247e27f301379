"""Stage tables and failure events. May import storage and the rooms below it."""
