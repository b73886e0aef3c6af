"""The routes, one file per wire format: the shapes of its requests, and what is answered."""
