"""Operations of commands and jobs. May import curation, cells, dagster_private and the rooms below them."""
