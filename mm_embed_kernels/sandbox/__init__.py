"""Child processes with limits on memory and time. May import errors and the rooms below them."""
