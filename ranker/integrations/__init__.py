"""Other libraries' interfaces, one short file each.

Every entry takes a model as a path or a loaded ``Ranker``, and the options of ``ranker.load`` as keyword arguments.
Columns that an integration adds have the names of ``BatchScorer``. An argument of the host library that is not
supported raises ``ConfigError``.
"""
