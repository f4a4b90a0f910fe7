import numpy as np
import pytest
import torch

from slm_lab.lib.rng import derive_seed, set_stream_state, stream_state


def numpys(stream):
    # float32 and small integers take half of a word at a time: the other half is part of where a stream is
    return [*stream.standard_normal(3, np.float32), *stream.integers(9, size=3), *stream.gumbel(size=3)]


def torchs(stream):
    return torch.randn(9, generator=stream).tolist()


def test_a_stream_is_a_function_of_seed_and_name():
    assert derive_seed(7, "env", 3) == derive_seed(7, "env", 3)


def test_streams_differ_by_seed_name_and_index():
    seeds = {
        derive_seed(seed, name, index) for seed in range(10) for name in ("env", "net", "action") for index in range(10)
    }
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("make", "draw"), [(np.random.default_rng, numpys), (lambda seed: torch.Generator().manual_seed(seed), torchs)]
)
def test_a_stream_goes_on_where_it_was(make, draw):
    stream, other = make(1), make(2)
    draw(stream)
    state = stream_state(stream)
    after = draw(stream)
    for goes_on in (stream, other):
        set_stream_state(goes_on, state)
        assert draw(goes_on) == after
        assert draw(goes_on) != after
