"""Media as bytes: their types, containers and decoding; imports errors only."""
