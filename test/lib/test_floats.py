import pytest
import torch
from torch import nn

from slm_lab.lib import floats


@pytest.fixture(autouse=True)
def _precision():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)
    floats.medium_is_exact.cache_clear()


@pytest.mark.parametrize(
    ("sizes", "exact", "chosen"),
    [((256, 256), True, "medium"), ((256, 256), False, "highest"), ((128, 256), True, "highest")],
)
def test_large_nets_take_the_faster_library_where_it_is_exact(monkeypatch, sizes, exact, chosen):
    monkeypatch.setattr(floats, "medium_is_exact", lambda: exact)
    for before in ("highest", "medium"):  # another session of this process may have had other nets
        torch.set_float32_matmul_precision(before)
        floats.choose_matmul([nn.Linear(4, 64), nn.Sequential(nn.Linear(*sizes))])
        assert torch.get_float32_matmul_precision() == chosen


@pytest.mark.parametrize(("rounding", "exact"), [(torch.float32, True), (torch.bfloat16, False)])
def test_rounding_to_bfloat16_is_noticed(monkeypatch, rounding, exact):
    product = torch.Tensor.__matmul__

    def rounded(left, right):
        digits = rounding if left.dtype == torch.float32 else left.dtype
        return product(left.to(digits), right.to(digits)).to(left.dtype)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert floats.medium_is_exact() == exact
    assert torch.get_float32_matmul_precision() == "highest"
