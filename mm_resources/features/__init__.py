"""Feature tables in LanceDB and their indexes. May import registry and the rooms below it."""
