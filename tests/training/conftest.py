"""What tests of training share."""

import pytest


@pytest.fixture
def unended(monkeypatch):
    """Runs end as if they were killed right after their last step: the checkpoints that led there stay."""
    monkeypatch.setattr("ranker.training.train.write_end", lambda output, end: None)
