"""The shape of the package: what is shipped, what may import what, and that the wheel alone works."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT, tiny

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TORCH_PACKAGES = ("ranker.models", "ranker.training", "ranker.checkpoints", "ranker.export")

HOSTS = ("ranker.integrations.datatrove", "ranker.integrations.distilabel")
"""Subclasses of their host's classes."""
SERVED = ("ranker.serving",)
"""What the serve extra is for."""


def modules():
    """Every module of the package, by import name."""
    names = []
    for path in sorted([*(ROOT / "ranker").rglob("*.py"), *(ROOT / "export").rglob("*.py")]):
        relative = path.relative_to(ROOT)
        if relative.parts[:2] == ("ranker", "export"):
            continue
        parts = ("ranker", *relative.parts) if relative.parts[0] == "export" else relative.parts
        names.append(".".join(parts)[: -len(".py")].removesuffix(".__init__"))
    return names


def test_the_packages_listed_are_the_folders_there():
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    folders = {name for name in modules() if importlib.util.find_spec(name).submodule_search_locations is not None}
    assert listed == folders


def test_the_link_to_export_resolves():
    link = ROOT / "ranker" / "export"
    assert link.resolve() == (ROOT / "export").resolve(), "restore it with: ln -sfn ../export ranker/export"


def test_a_checkout_without_symbolic_links_imports(tmp_path):
    """As git makes one on Windows: the link is a text file."""
    files = subprocess.run(
        ["git", "ls-files", "ranker/**.py", "export"], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout.split()
    for name in files:
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    (tmp_path / "ranker" / "export").write_text("../export")
    code = "import ranker.export.parity, ranker.data.load; print(ranker.export.parity.__file__)"
    env = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert Path(done.stdout.strip()) == tmp_path / "export" / "parity.py", done.stderr


def test_packages_have_a_docstring_and_say_what_they_export():
    import ast

    for path in [*(ROOT / "ranker").glob("*/**/__init__.py"), ROOT / "export" / "__init__.py"]:
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        assert len(tree.body) == 1 or "__all__" in path.read_text(), path


def test_nothing_outside_the_torch_packages_reaches_torch():
    names = [n for n in modules() if not n.startswith((*TORCH_PACKAGES, *HOSTS)) and n != "ranker.__main__"]
    code = (
        f"import importlib, sys\nfor name in {names!r}:\n    importlib.import_module(name)\n"
        "heavy = {'torch', 'transformers'} & set(sys.modules)\nsys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_scoring_does_not_load_the_settings_of_training():
    code = "import sys, ranker.api.files, ranker.jobs.stream\nsys.exit('ranker.config' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_import_contracts_hold():
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout


def test_every_module_imports():
    for name in modules():
        if name != "ranker.__main__":
            assert importlib.import_module(name).__doc__, name


def test_no_module_is_called_utils():
    for path in [*(ROOT / "ranker").rglob("*.py"), *(ROOT / "export").glob("*.py")]:
        assert path.stem not in ("utils", "common", "base"), path


def needed(extras):
    """Folders and files of the distributions that the base install and ``extras`` need, from this environment."""
    wanted = [Requirement(r) for r in PROJECT["project"]["dependencies"]]
    for extra in extras:
        wanted += [Requirement(r) for r in PROJECT["project"]["optional-dependencies"][extra]]
    allowed, seen = set(), set()
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop().name).lower()
        if name in seen:
            continue
        seen.add(name)
        distribution = importlib.metadata.distribution(name)
        for requirement in map(Requirement, distribution.requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement)
        tops = {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}
        allowed |= {Path(distribution.locate_file(top)) for top in tops}
    return allowed


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """A folder with the wheel and the sdist, built from what git tracks."""
    folder = tmp_path_factory.mktemp("clean")
    tracked = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout
    for name in filter(None, tracked.split("\0")):  # a copy: what an earlier build left behind must not get in
        if (ROOT / name).exists():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / "source" / name, follow_symlinks=False)
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(folder / "source")],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="module")
def clean_python(distributions):
    """A fresh environment with the wheel, the base dependencies and the cpu extra, and nothing else."""
    folder = distributions
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    for source in needed(["cpu"]):
        os.symlink(source, packages / source.name)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--no-index",
            "--target",
            str(packages),
            str(wheel),
        ],
        check=True,
        capture_output=True,
    )
    return folder / "venv" / "bin" / "python"


@pytest.mark.full
def test_the_distributions_hold_the_package_and_nothing_else(distributions):
    (wheel,) = distributions.glob("*.whl")
    (sdist,) = distributions.glob("*.tar.gz")
    info = "ranker_toolkit-*.dist-info/"
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if not name.endswith("/")}
    allowed = re.compile(r"ranker/.*\.(py|yaml)|ranker/py\.typed|ranker_toolkit-.*\.dist-info/.*")
    assert not [name for name in inside if not allowed.fullmatch(name)]
    sources = {name.replace(".", "/") for name in modules()}
    stems = {name.removesuffix(".py").removesuffix("/__init__") for name in inside if name.endswith(".py")}
    assert stems == sources
    assert {path.name for path in (ROOT / "ranker/training/recipes").glob("*.yaml")} <= {
        name.rpartition("/")[2] for name in inside
    }
    for name in ("LICENSE", "NOTICE", "METADATA", "entry_points.txt"):
        assert [path for path in inside if Path(path).match(f"{info}**/{name}") or Path(path).match(f"{info}{name}")]
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "export/write.py", "ranker/loading.py"} <= names
    assert not [name for name in names if name.startswith((".github", "runs", "build", "docs/", "benchmarks"))]


@pytest.mark.full
def test_the_description_renders_and_has_no_relative_links(distributions):
    files = [str(path) for path in distributions.iterdir() if path.suffix in (".whl", ".gz")]
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *files], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout
    with zipfile.ZipFile(next(distributions.glob("*.whl"))) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        text = archive.read(metadata).decode()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert all(link.startswith(("https://", "#")) for link in links), links


@pytest.mark.full
def test_the_wheel_alone_imports_and_scores(clean_python, tmp_path):
    """Base and cpu extras only: every module outside the torch packages imports, and model.onnx alone scores a file."""
    from ranker.checkpoints import native
    from ranker.data.formats import parse_preference
    from ranker.data.sample import build
    from ranker.export.write import export

    native.save(*tiny(), tmp_path / "checkpoint")
    rows = [parse_preference(row, row["id"]) for _, row in zip(range(4), build.rows("validation"), strict=False)]
    export(tmp_path / "checkpoint", {"fp32": tmp_path / "model.onnx"}, rows=rows)

    names = [n for n in modules() if not n.startswith((*TORCH_PACKAGES, *HOSTS, *SERVED)) and n != "ranker.__main__"]
    code = f"import importlib\nfor name in {names!r}:\n    importlib.import_module(name)\n"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([clean_python, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([clean_python, "-c", "import torch"], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode != 0, "the environment must be without torch"
    command = [clean_python, "-m", "ranker", "score", "--onnx", "model.onnx", "-i", ROOT / "data" / "validation.jsonl"]
    done = subprocess.run([*command, "-o", "out.jsonl"], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == build.SIZES["validation"]
    for verb, extra in ((["train", "pairrm"], "train"), (["serve", "--onnx", "model.onnx"], "serve")):
        done = subprocess.run(
            [clean_python, "-m", "ranker", *verb], capture_output=True, text=True, cwd=tmp_path, env=env
        )
        assert done.returncode == 2
        assert f"pip install 'ranker-toolkit[{extra}]'" in done.stderr
