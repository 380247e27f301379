"""Child processes with limits on memory and time; imports errors and identity only."""
