"""The routes, one file per wire format: the shapes of requests and responses."""
