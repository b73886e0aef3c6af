"""Public suites: how their rows are read and their numbers made."""
