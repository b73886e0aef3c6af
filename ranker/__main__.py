"""``ranker``, also as ``python -m ranker``: takes signals before the command line is imported."""

import signal
import sys

from ranker.signals import NAMES, number_of, quiet_destructors, stop


def main() -> None:
    """Run the command line; an interruption while it is imported is one line, as later."""
    quiet_destructors()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        from ranker.cli.main import main as run
    except KeyboardInterrupt as error:
        number = signal.Signals(number_of(error))
        sys.stderr.write(f"ranker: stopped by {NAMES[number]}\n")
        sys.exit(128 + number)
    run()


if __name__ == "__main__":
    main()
