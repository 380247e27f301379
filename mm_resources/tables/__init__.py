"""Stage tables and failure events: the Lance datasets of the pipeline. Imports storage alone."""
