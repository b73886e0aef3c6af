"""Readers and writers of other trainers' reward models, one module per format."""
