import pytest
import torch
from loguru import logger

torch.set_num_threads(1)  # the nets of the tests are tiny


@pytest.fixture
def warnings(monkeypatch):
    """What was warned of."""
    monkeypatch.setattr("slm_lab.agent.net.fallback._warned", set())
    lines = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)
