import pytest
from loguru import logger


@pytest.fixture
def log_messages():
    """What was logged during the test, one string a message."""
    messages: list[str] = []
    handler = logger.add(lambda message: messages.append(str(message)), format="{message}")
    yield messages
    logger.remove(handler)
