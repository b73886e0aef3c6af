"""The seeded generator of the sample preference set: tasks whose answers a program checks."""
