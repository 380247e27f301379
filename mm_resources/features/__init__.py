"""Feature tables in LanceDB and their indexes; may import the registry and below."""
