from slm_lab.lib.rng import derive_seed


def test_a_stream_is_a_function_of_seed_and_name():
    assert derive_seed(7, "env", 3) == derive_seed(7, "env", 3)


def test_streams_differ_by_seed_name_and_index():
    seeds = {
        derive_seed(seed, name, index) for seed in range(10) for name in ("env", "net", "action") for index in range(10)
    }
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)
