import sys
from types import SimpleNamespace

import pytest

from ranker.errors import ConfigError, ModelFileError
from ranker.runtime import session


def fake_runtime(monkeypatch, available, got=None, error=None):
    """An onnxruntime that offers ``available`` and opens with ``got``."""
    opened = {}

    class Session:
        def __init__(self, path, options, providers):
            if error:
                raise error
            opened.update(path=path, threads=options.intra_op_num_threads, providers=providers)

        def get_providers(self):
            return got or available

    runtime = SimpleNamespace(
        get_available_providers=lambda: available,
        SessionOptions=lambda: SimpleNamespace(intra_op_num_threads=0, log_severity_level=0),
        InferenceSession=Session,
    )
    monkeypatch.setattr(session, "require", lambda name: runtime)
    monkeypatch.setattr(session, "onnxruntime_conflict", lambda: None)
    return opened


def test_auto_takes_cuda_where_it_is_offered_and_cpu_elsewhere(monkeypatch, tmp_path):
    opened = fake_runtime(monkeypatch, [session.CUDA, session.CPU])
    session.open_session(tmp_path, threads=3)
    assert opened["providers"] == [session.CUDA, session.CPU]
    assert opened["threads"] == 3
    opened = fake_runtime(monkeypatch, [session.CUDA, session.CPU])
    session.open_session(tmp_path, device="cpu")
    assert opened["providers"] == [session.CPU]


def test_cuda_that_silently_falls_back_is_an_error(monkeypatch, tmp_path):
    fake_runtime(monkeypatch, [session.CUDA, session.CPU], got=[session.CPU])
    with pytest.raises(ConfigError, match="fell back to the CPU; check the driver"):
        session.open_session(tmp_path, device="cuda")


def test_both_wheels_are_said_before_anything_else(monkeypatch, tmp_path, caplog):
    fake_runtime(monkeypatch, [session.CPU])
    monkeypatch.setattr(session, "onnxruntime_conflict", lambda: "both wheels are installed")
    session.open_session(tmp_path)
    assert "both wheels are installed" in caplog.text
    with pytest.raises(ConfigError, match=r"offers only CPUExecutionProvider; both wheels are installed"):
        session.open_session(tmp_path, device="cuda")


def test_a_file_the_engine_refuses_is_one_line(monkeypatch, tmp_path):
    fake_runtime(monkeypatch, [session.CPU], error=RuntimeError("bad opset\nlong trace"))
    with pytest.raises(ModelFileError, match=r"onnxruntime cannot load it \(bad opset\)"):
        session.open_session(tmp_path / "m.onnx")


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("", 8)])
def test_threads_follow_affinity_and_quota(monkeypatch, tmp_path, quota, cores):
    monkeypatch.setattr(session.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(session, "QUOTA", tmp_path / "cpu.max")
    assert session.available_cores() == cores


def test_a_machine_without_cgroups(monkeypatch, tmp_path):
    monkeypatch.setattr(session, "QUOTA", tmp_path / "none")
    assert session.available_cores() >= 1
    assert sys.platform
