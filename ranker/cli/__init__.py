"""The command line: one module per command, imported when the command is used; each makes one call of the API."""
