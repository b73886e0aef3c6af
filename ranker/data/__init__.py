"""Row formats to records, files, loading, and the generator of the sample in ``data/``."""
