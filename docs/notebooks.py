"""Runs the notebooks of ``examples/notebooks`` and keeps what their cells print.

python docs/notebooks.py FOLDER     # with runs/pairrm/model.onnx and data/, as make train-pairrm leaves them
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent.parent / "examples" / "notebooks"


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """A notebook after its cells have run in ``folder``; bars and logs of stderr are left out.

    Raises:
        CellExecutionError: a cell failed.
    """
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    for cell in book.cells:
        cell.metadata.clear()
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return book


if __name__ == "__main__":
    for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
        nbformat.write(executed(notebook, Path(sys.argv[1])), notebook)
