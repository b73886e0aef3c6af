"""The command line: its help, its commands, its errors, and what it imports."""

import importlib
import logging
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import ranker
from ranker.cli import main as command_line
from ranker.cli.main import COMMANDS, app
from ranker.errors import CheckpointError, ConfigError, DataError
from tests.conftest import ROOT

RUN = CliRunner()
HEAVY = ("torch", "transformers", "numpy", "onnxruntime", "tokenizers", "pydantic", "fastapi")


@pytest.fixture
def run_main(monkeypatch, capsys):
    """Runs ``main`` with an application that raises an error; gives the exit code and standard error."""

    def run(error, debug=""):
        def raising():
            raise error

        monkeypatch.setattr(command_line, "app", raising)
        monkeypatch.setattr(command_line.signal, "signal", lambda number, handler: None)
        monkeypatch.setenv("RANKER_DEBUG", debug)
        with pytest.raises(SystemExit) as caught:
            command_line.main()
        return caught.value.code, capsys.readouterr().err

    return run


@pytest.fixture(autouse=True)
def debug_of_others(monkeypatch):
    """The option ``--debug`` sets a variable of the environment and the level of the logs."""
    monkeypatch.setenv("RANKER_DEBUG", "")
    level = logging.getLogger("bitsandbytes").level
    yield
    logging.getLogger("bitsandbytes").setLevel(level)


def test_a_signal_while_python_shuts_down_changes_nothing(monkeypatch):
    handlers = {}
    monkeypatch.setattr("signal.signal", lambda number, handler: handlers.update({number: handler}))
    monkeypatch.setattr(command_line, "app", lambda: sys.exit(0))
    with pytest.raises(SystemExit) as caught:
        command_line.main()
    assert caught.value.code == 0
    assert handlers == dict.fromkeys((signal.SIGINT, signal.SIGTERM), signal.SIG_IGN)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_its_options(command):
    shown = RUN.invoke(app, [command, "--help"])
    assert shown.exit_code == 0, shown.output
    assert f"Usage: ranker {command}" in shown.output
    assert "--help" in shown.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does(command):
    module = importlib.import_module(f"ranker.cli.{COMMANDS[command]}")
    first = module.main.__doc__.strip().splitlines()[0]
    assert first.endswith((".", ";"))
    assert first.rstrip(".;") in " ".join(RUN.invoke(app, [command, "--help"]).output.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_an_example_of_a_command_calls_that_command(command):
    module = importlib.import_module(f"ranker.cli.{COMMANDS[command]}")
    _, marker, example = module.main.__doc__.partition("Example: ")
    assert not marker or f"ranker {command} " in example


def test_the_help_lists_the_commands_in_their_order():
    output = RUN.invoke(app, ["--help"]).output
    places = [output.index(f"\n  {command} ") for command in COMMANDS]
    assert places == sorted(places)


def test_no_command_shows_the_help():
    assert "Usage: ranker" in RUN.invoke(app, []).output


def test_every_module_of_a_command_has_a_main():
    for module in COMMANDS.values():
        assert callable(importlib.import_module(f"ranker.cli.{module}").main)


def test_an_unknown_command_is_refused_by_name():
    shown = RUN.invoke(app, ["scroe"])
    assert shown.exit_code == 2
    assert "No such command 'scroe'; did you mean 'score'?" in shown.output


def test_an_unknown_option_is_refused_by_name():
    shown = RUN.invoke(app, ["score", "--modle", "m.onnx"])
    assert shown.exit_code == 2
    assert "--modle" in shown.output


def test_the_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom ranker.cli.main import app\nsys.argv = ['ranker', '--help']\n"
        "try:\n    app()\nexcept SystemExit:\n    pass\n"
        f"sys.stderr.write(','.join(name for name in {HEAVY!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "Usage:" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("x"), 2), (DataError("f:1", "prompt", "y"), 3), (CheckpointError("z"), 4)]
)
def test_an_error_is_one_line_and_its_exit_code(error, code, run_main):
    assert run_main(error) == (code, f"ranker: error: {error}\n")


def test_an_interruption_is_one_line_and_the_exit_code_of_its_signal(run_main):
    assert run_main(command_line.CommandStoppedError("stopped by SIGTERM", 143)) == (
        143,
        "ranker: stopped by SIGTERM\n",
    )


def test_debugging_shows_the_traceback(run_main):
    with pytest.raises(ConfigError, match="x"):
        run_main(ConfigError("x"), debug="1")


@pytest.mark.parametrize("how", [["--dry-run"], []])
def test_training_refuses_a_first_row_before_it_loads_a_library(how, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "q", "good": "a", "bad": "b"}\n')
    script = (
        "import sys; from typer.testing import CliRunner; from ranker.cli.main import app;"
        f"done = CliRunner().invoke(app, ['train', 'pairrm', 'data.train={rows}', 'output_dir={tmp_path}/run', *{how}]);"
        "print(done.exception, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "rows.jsonl:1: columns: expected chosen and rejected" in done.stdout
    assert done.stdout.endswith("False\n")


def test_training_reads_columns_by_other_names():
    shown = RUN.invoke(app, ["train", "pairrm", "--column", "chosen=good", "--print-config"])
    assert "chosen: good" in shown.output


def test_the_version_is_printed():
    shown = RUN.invoke(app, ["--version"])
    assert shown.exit_code == 0
    assert shown.output == f"ranker-toolkit {ranker.__version__}\n"
