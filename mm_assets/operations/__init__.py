"""Operations on cells behind the `mm` commands and jobs. Imports curation, cells and the packages below."""
