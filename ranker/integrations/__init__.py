"""Other libraries' interfaces, each a short file over ``ranker.load``."""
