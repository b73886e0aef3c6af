import sys
from types import SimpleNamespace

import pytest

from ranker.errors import ConfigError, ModelFileError
from ranker.runtime import session
from ranker.runtime.devices import torch_device

EXACT = {"use_tf32": "0", "enable_skip_layer_norm_strict_mode": "1", "sdpa_kernel": "3"}
"""Options of CUDA by which sums are those of fp32."""


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
    assert opened["providers"] == [(session.CUDA, EXACT), session.CPU], "fp32 is fp32"
    assert opened["threads"] == 3
    opened = fake_runtime(monkeypatch, [session.CUDA, session.CPU])
    session.open_session(tmp_path, device="cpu")
    assert opened["providers"] == [session.CPU]


def test_cuda_that_silently_falls_back_is_an_error(monkeypatch, tmp_path):
    fake_runtime(monkeypatch, [session.CUDA, session.CPU], got=[session.CPU])
    with pytest.raises(ConfigError, match="fell back to CPUExecutionProvider; check the driver"):
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


def test_tensorrt_keeps_its_engines_and_falls_back_to_nothing_silently(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    everything = [session.TENSORRT, session.CUDA, session.CPU]
    opened = fake_runtime(monkeypatch, everything)
    session.open_session(tmp_path, device="tensorrt")
    (name, settings), *rest = opened["providers"]
    assert [name, *(provider if isinstance(provider, str) else provider[0] for provider in rest)] == everything
    assert settings["trt_engine_cache_enable"]
    assert settings["trt_engine_cache_path"] == str(tmp_path / "ranker-toolkit" / "tensorrt")
    fake_runtime(monkeypatch, everything, got=[session.CUDA, session.CPU])
    with pytest.raises(ConfigError, match="TensorRT was asked for, but onnxruntime fell back to CUDAExecution"):
        session.open_session(tmp_path, device="tensorrt")
    fake_runtime(monkeypatch, [session.CPU])
    with pytest.raises(ConfigError, match="TensorRT was asked for, but the installed onnxruntime offers only CPU"):
        session.open_session(tmp_path, device="tensorrt")


@pytest.mark.parametrize(
    ("flags", "slow"),
    [("avx2", True), ("avx2 avx_vnni", False), ("avx512f avx512_vnni", False), ("avx512f", True), (None, False)],
)
def test_int8_is_said_to_be_slow_where_there_are_no_dot_products(monkeypatch, tmp_path, flags, slow):
    path = tmp_path / "cpuinfo"
    if flags is not None:
        path.write_text(f"model name : X\nflags\t\t: fpu {flags}\n")
    monkeypatch.setattr(session, "PROCESSOR", path)
    assert (session.int8_warning() is not None) == slow


def test_gpus_are_named_by_the_driver(monkeypatch, tmp_path):
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA H200\nIRQ: 12\n")
    monkeypatch.setattr(session, "GRAPHICS", tmp_path)
    assert session.graphics() == "NVIDIA H200"
    monkeypatch.setattr(session, "GRAPHICS", tmp_path / "none")
    assert session.graphics() == ""


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


def test_another_gpu_than_the_first_is_asked_for_by_its_number(monkeypatch, tmp_path):
    opened = fake_runtime(monkeypatch, [session.CUDA, session.CPU])
    session.open_session(tmp_path, device="cuda:1")
    assert opened["providers"] == [(session.CUDA, EXACT | {"device_id": "1"}), session.CPU]


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "expected device auto, cpu, cuda, tensorrt, mps, xpu or cuda:1, got 'gpu'"),
        ("cuda:x", "expected a number after the colon"),
        ("cpu:1", "expected a number after the colon of cuda, tensorrt, xpu"),
        ("mps", "device 'mps': a model.onnx runs on cpu, cuda, tensorrt; load its checkpoint on mps"),
    ],
)
def test_a_device_that_is_not_there_is_one_line(device, message, monkeypatch, tmp_path):
    fake_runtime(monkeypatch, [session.CPU])
    with pytest.raises(ConfigError, match=message):
        session.open_session(tmp_path, device=device)


class Backend:
    def __init__(self, count):
        self.count = count

    def is_available(self):
        return self.count > 0

    def device_count(self):
        return self.count


@pytest.mark.parametrize(
    ("device", "count", "place"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda"),
        ("cpu", 2, "cpu"),
        ("cuda", 2, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
        ("mps", 1, "mps"),
        ("xpu:1", 2, "xpu:1"),
    ],
)
def test_names_of_torch_are_taken(device, count, place):
    torch = SimpleNamespace(cuda=Backend(count), xpu=Backend(count), backends=SimpleNamespace(mps=Backend(count)))
    assert torch_device(device, torch) == place


def test_devices_that_torch_does_not_find_are_refused():
    torch = SimpleNamespace(cuda=Backend(1), xpu=Backend(0), backends=SimpleNamespace(mps=Backend(0)))
    for device, message in (
        ("cuda:1", "device 'cuda:1': torch finds 1 of them, from cuda:0 on"),
        ("mps", "MPS was asked for, but torch finds none"),
        ("xpu", "XPU was asked for"),
        ("tensorrt", "TensorRT runs a model.onnx"),
    ):
        with pytest.raises(ConfigError, match=message):
            torch_device(device, torch)
