import ctypes
import subprocess
import sys

import pytest

from slm_lab.lib.malloc import LARGE, M_MMAP_THRESHOLD

PAGES = 15_625  # of 4 KiB, in a tensor of 64 MB
FAULTS = """
import ctypes
import resource
import torch
from slm_lab.lib.malloc import keep_freed_memory

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # no pages of other sizes
keep_freed_memory()
for _ in range(20):  # it takes some to find their place
    torch.ones(16_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(16_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def takes_it():
    """Whether this C library can be told."""
    code = f"import ctypes, sys; sys.exit(not ctypes.CDLL(None).mallopt({M_MMAP_THRESHOLD}, {LARGE}))"
    return (
        hasattr(ctypes.CDLL(None), "mallopt")
        and subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    )


@pytest.mark.skipif(sys.platform != "linux" or not takes_it(), reason="of newer glibc")
def test_freed_memory_is_used_again():
    ran = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, check=True)
    assert int(ran.stdout) < PAGES  # ten times as many, if each tensor is made of new pages
