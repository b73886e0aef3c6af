"""The calls that a whole job takes: train, evaluate, export, convert, filter. The command line calls these."""
