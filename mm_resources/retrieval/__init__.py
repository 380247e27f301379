"""Search, training sets, exports and lineage of features. May import catalog and the rooms below it."""
