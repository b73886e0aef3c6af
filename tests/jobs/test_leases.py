"""A lease is one worker's, and a dead worker's is free."""

import os
import threading
import time

import pytest

from ranker.jobs import leases
from ranker.jobs.leases import STALE, Lease


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".part-000000.lease"


@pytest.fixture
def lease(path):
    """A lease that is taken, and released after the test."""
    held = Lease(path)
    assert held.take()
    yield held
    held.release()


def set_age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def test_a_free_lease_is_taken(lease, path):
    assert path.exists()


def test_a_lease_that_is_taken_is_refused(lease, path):
    assert not Lease(path).take()


def test_a_lease_of_a_living_process_is_never_stale(lease, path):
    set_age(path, 10 * STALE)
    assert not Lease(path).take()


def test_release_leaves_no_file(lease, tmp_path):
    lease.release()
    assert list(tmp_path.iterdir()) == []


def test_a_released_lease_is_free(lease, path):
    lease.release()
    second = Lease(path)
    assert second.take()
    second.release()


def test_release_of_a_lease_that_another_took_over_leaves_it(lease, path):
    path.write_text("another-machine 1 2 token\n")
    lease.release()
    assert path.read_text() == "another-machine 1 2 token\n"


def test_release_of_a_lease_that_was_never_taken_changes_nothing(path, lease):
    Lease(path).release()
    assert path.exists()


def test_a_forked_process_that_ends_leaves_the_lease_of_its_parent(path, lease):
    child = os.fork()
    if not child:
        leases._release_all()
        os._exit(0)
    os.waitpid(child, 0)
    assert path.exists()
    leases._release_all()
    assert not path.exists()


def test_the_lease_of_an_ended_process_is_taken_over_at_once(path, lease):
    machine, process, _, token = path.read_text().split(" ")
    path.write_text(f"{machine} {process} 1 {token}")  # the process number now belongs to a later process
    second = Lease(path)
    assert second.take()
    second.release()


def test_a_fresh_lease_of_another_machine_is_refused(path):
    path.write_text("another-machine 12 34 token\n")
    assert not Lease(path).take()


def test_an_old_lease_of_another_machine_is_taken_over(path, tmp_path):
    path.write_text("another-machine 12 34 token\n")
    set_age(path, STALE + 1)
    second = Lease(path)
    assert second.take()
    assert list(tmp_path.iterdir()) == [path], "nothing of the stale lease is left"
    second.release()


def test_an_empty_lease_is_stale_only_with_age(path):
    path.write_text("")
    assert not Lease(path).take()
    set_age(path, STALE + 1)
    second = Lease(path)
    assert second.take()
    second.release()


def test_a_stale_lease_that_was_renewed_meanwhile_is_put_back(path, monkeypatch):
    path.write_text("another-machine 12 34 stale\n")
    set_age(path, STALE + 1)
    rename = type(path).rename

    def renewed_before(self, target):
        if self == path:
            path.write_text("another-machine 12 34 renewed\n")
        return rename(self, target)

    monkeypatch.setattr(type(path), "rename", renewed_before)
    assert not Lease(path).take()
    assert path.read_text() == "another-machine 12 34 renewed\n"


def test_a_lease_that_another_worker_took_first_is_refused(path, monkeypatch):
    path.write_text("another-machine 12 34 stale\n")
    set_age(path, STALE + 1)

    def gone(self, target):
        raise FileNotFoundError(self)

    monkeypatch.setattr(type(path), "rename", gone)
    assert not Lease(path).take()


def test_a_lease_is_touched_while_it_is_held(path, monkeypatch):
    monkeypatch.setattr(leases, "STALE", 0.01)
    touched = threading.Event()
    monkeypatch.setattr(leases.os, "utime", lambda _: touched.set())
    held = Lease(path)
    assert held.take()
    assert touched.wait(10)
    held.release()


def test_a_lease_that_was_lost_is_not_touched(path, monkeypatch):
    monkeypatch.setattr(leases, "STALE", 0.01)
    held = Lease(path)
    assert held.take()
    path.write_text("another-machine 12 34 token\n")
    beat = next((thread for thread in threading.enumerate() if thread.name == "ranker-lease"), None)
    if beat is not None:
        beat.join(10)
        assert not beat.is_alive()
