import subprocess
import sys

import pytest

PAGES = 8_000  # of 4 KiB, in a tensor of 32 MB
FAULTS = """
import resource
import torch
from slm_lab.lib.malloc import keep_freed_memory

keep_freed_memory()
for _ in range(20):  # it takes some to find their place
    torch.ones(8_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(8_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_memory_is_used_again():
    ran = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, check=True)
    assert int(ran.stdout) < PAGES  # ten times as many, if each tensor is made of new pages
