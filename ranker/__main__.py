"""``python -m ranker``."""

from ranker.cli.main import main

main()
