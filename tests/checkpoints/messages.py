"""What loading every format gives, broken in every way: ``messages.txt``, a line per format and breakage.

    python -m tests.checkpoints.messages        # writes the file

``test_broken`` compares it with what the code says; ``docs/checkpoints.py`` quotes a few lines of it.
"""

import tempfile
import warnings
from pathlib import Path

from tests.conftest import ROOT

FILE = ROOT / "tests" / "checkpoints" / "messages.txt"


def read() -> dict[tuple[str, str], str]:
    """Messages by format and breakage."""
    lines = (line.split(" | ", 2) for line in FILE.read_text(encoding="utf-8").splitlines())
    return {(name, breakage): message for breakage, name, message in lines}


def message(text: str, folder: Path) -> str:
    """What ``outcome`` returned, without the place where the checkpoint lay."""
    return text.removeprefix("error: ").replace(f"{folder}/", "")


def write() -> None:
    """Make, break and load a checkpoint for every line."""
    from tests.checkpoints.layouts import BREAKAGES, CHECKPOINTS, outcome

    lines = []
    for breakage in BREAKAGES:
        for name, make in CHECKPOINTS.items():
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                text = outcome(name, breakage, make(Path(folder)))
            if text != "does not apply":
                lines.append(f"{breakage} | {name} | {message(str(text), Path(folder))}\n")
    FILE.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    write()
