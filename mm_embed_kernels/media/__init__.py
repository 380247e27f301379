"""Media as bytes: types, containers, decoding. May import errors and the rooms below them."""
