"""The command line: parses, dispatches to ``ranker.commands`` by name, and imports nothing heavy itself."""
