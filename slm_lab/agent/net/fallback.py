"""What is said where `torch.compile` fails and the plain code goes on."""

from loguru import logger


def warn_uncompiled(what: str, error: Exception) -> None:
    """Warn that `what` is done without `torch.compile`, because of `error`."""
    cause = getattr(error, "inner_exception", error)
    why = f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
    logger.warning("--torch-compile: {} cannot be compiled here and is done without ({})", what, why)
