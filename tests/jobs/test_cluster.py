"""The same job on Ray Data, with a worker that is killed in the middle."""

import json
import os
import signal
import threading
import time

import pytest
import ray

from ranker.batch_scorer import BatchScorer
from ranker.jobs import cluster, job
from tests.jobs.test_run import read

ROWS = [{"id": i, "prompt": f"p {i}", "candidates": ["a saw", f"hammer {i}", "pear " * (i % 7)]} for i in range(600)]


@pytest.fixture(scope="module", autouse=True)
def local():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    yield
    ray.shutdown()


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


def kill_one(folder, killed):
    """Kill the first worker that holds a lease, by the process number in it."""
    while not killed:
        for lease in folder.glob(".*.lease"):
            try:
                process = int(lease.read_text().split()[1])
            except (OSError, IndexError, ValueError):
                continue
            if process != os.getpid():
                os.kill(process, signal.SIGKILL)
                killed.append(process)
                return
        time.sleep(0.002)


@pytest.mark.full
def test_a_killed_worker_loses_nothing_and_doubles_nothing(model, rows, tmp_path):
    alone = job.score(BatchScorer(model, threads=1), [rows], tmp_path / "alone", part_rows=50)
    folder, killed = tmp_path / "ray", []
    folder.mkdir()
    killer = threading.Thread(target=kill_one, args=(folder, killed), daemon=True)
    killer.start()
    job.score(BatchScorer(model, threads=1), [rows], folder, part_rows=50, work=cluster.spread(2))
    killer.join(1)
    assert killed
    assert [row["id"] for row in read(folder)] == list(range(600))
    assert read(folder) == read(tmp_path / "alone")
    assert alone.parts == 12
    assert (folder / "_SUCCESS").exists()
    assert not list(folder.glob(".*.lease"))


@pytest.mark.full
def test_what_is_there_is_not_done_again(model, rows, tmp_path):
    job.score(BatchScorer(model, threads=1), [rows], tmp_path / "out", part_rows=100)
    (tmp_path / "out" / "part-000003.jsonl").unlink()
    seen = []
    done = job.score(
        BatchScorer(model), [rows], tmp_path / "out", part_rows=100, work=cluster.spread(2), progress=seen.append
    )
    assert (done.parts, done.read, seen) == (1, 100, [100])
