"""What a search section means: hand-computed values, bounds, and one clear line for what is wrong."""

import json
import math
import re
from itertools import pairwise
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger

from slm_lab.spec import Spec, SpecError, load_spec
from slm_lab.spec.search_space import MAX_CORNERS, SearchSpace, short_names, show_values

GAMMA = "agent.algorithm.gamma"


def spec_of(search):
    raw = load_spec("demo.json", "dqn_cartpole").to_dict()
    return Spec.from_dict("searched", raw | {"search": search})


def parameter(distribution, arguments, path=GAMMA):
    (only,) = SearchSpace(spec_of({f"{path}__{distribution}": arguments})).parameters
    return only


class Draws:
    """As an Optuna trial, but what it draws is told: a share of the way from low to high, on the scale asked for."""

    def __init__(self, share):
        self.share = share

    def suggest_categorical(self, _name, choices):
        return choices[min(int(self.share * len(choices)), len(choices) - 1)]

    def suggest_float(self, _name, low, high, *, step=None, log=False):
        if log:
            return math.exp(math.log(low) + self.share * (math.log(high) - math.log(low)))
        value = low + self.share * (high - low)
        return value if step is None else low + round((value - low) / step) * step

    def suggest_int(self, _name, low, high, *, step=1, log=False):
        assert isinstance(low, int)
        assert isinstance(high, int)
        if log:
            return round(self.suggest_float("", low, high, log=True))
        return low + round(self.share * (high - low) / step) * step


@pytest.mark.parametrize(
    ("distribution", "arguments", "values"),  # drawn at 0, ½ and 1 of the way
    [
        ("uniform", [0.8, 0.9], [0.8, 0.85, 0.9]),
        ("loguniform", [1e-4, 1e-2], [1e-4, 1e-3, 1e-2]),
        ("loguniform", [1e-4, 1e-2, 10], [1e-4, 1e-3, 1e-2]),
        ("quniform", [0.05, 0.35, 0.1], [0.1, 0.2, 0.3]),
        ("quniform", [0.1, 0.3, 0.1], [0.1, 0.2, 0.3]),  # 0.3 / 0.1 is a little less than 3 in floats
        ("qloguniform", [0.1, 10, 0.5], [0.5, 1.0, 10.0]),
        ("randint", [1, 10], [1, 5, 9]),  # the upper end is not one of them
        ("qrandint", [10, 50, 20], [20, 20, 40]),
        ("lograndint", [1, 101], [1, 10, 100]),
        ("qlograndint", [5, 500, 10], [10, 50, 500]),
        ("choice", ["a", "b", "c"], ["a", "b", "c"]),
        ("grid_search", [[8], [8, 8], [16]], [[8], [8, 8], [16]]),
        ("choice", [1, True, 1.0], [1, True, 1.0]),
    ],
)
def test_values(distribution, arguments, values):
    drawn = [parameter(distribution, arguments).suggest(Draws(share)) for share in (0.0, 0.5, 1.0)]
    assert drawn == pytest.approx(values) if isinstance(values[0], float) else drawn == values
    assert [type(value) for value in drawn] == [type(value) for value in values]


def test_a_normal_number_is_drawn_as_its_quantile():
    normal = parameter("randn", [2.0, 3.0])
    assert normal.suggest(Draws(0.5)) == pytest.approx(2.0)
    assert normal.value(0.975) == pytest.approx(2.0 + 3.0 * 1.959964)
    assert normal.ends == pytest.approx([2 - 3 * 4.7534, 2 + 3 * 4.7534], rel=1e-4)
    assert parameter("randn", []).value(0.5) == 0.0
    assert parameter("qrandn", [0.0, 1.0, 0.25]).value(NormalDist().cdf(0.6)) == 0.5


@settings(deadline=None)
@given(
    low=st.floats(1e-6, 1e3),
    width=st.floats(1e-3, 1e3),
    share=st.floats(0, 1),
    log=st.booleans(),
)
def test_floats_stay_within_their_bounds(low, width, share, log):
    value = parameter("loguniform" if log else "uniform", [low, low + width]).suggest(Draws(share))
    assert low * (1 - 1e-9) <= value <= (low + width) * (1 + 1e-9)


@settings(deadline=None)
@given(
    low=st.integers(1, 1000),
    width=st.integers(1, 1000),
    q=st.integers(1, 300),
    share=st.floats(0, 1),
    log=st.booleans(),
)
def test_whole_numbers_are_multiples_within_their_bounds(low, width, q, share, log):
    arguments = [low, low + width, q]
    if (low + width) // q * q < low:
        with pytest.raises(SpecError, match="multiple of q"):
            parameter("qrandint", arguments)
        return
    value = parameter("qlograndint" if log else "qrandint", arguments).suggest(Draws(share))
    assert isinstance(value, int)
    assert low <= value <= low + width
    assert value % q == 0


@settings(deadline=None)
@given(a=st.floats(1e-6, 1 - 1e-6), b=st.floats(1e-6, 1 - 1e-6))
def test_a_larger_quantile_is_no_smaller_number(a, b):
    normal = parameter("qrandn", [0.0, 2.0, 0.5])
    assert (normal.value(a) - normal.value(b)) * (a - b) >= 0


@pytest.mark.parametrize(
    ("key", "arguments", "text"),
    [
        (f"{GAMMA}__unifrom", [0, 1], "unknown distribution 'unifrom'; did you mean 'uniform'?"),
        (f"{GAMMA}__uniform", [1, 0], "must be [low, high] with low < high, got [1, 0]"),
        (f"{GAMMA}__uniform", [0], "must be [low, high], numbers, got [0]"),
        (f"{GAMMA}__uniform", ["0", 1], "numbers"),
        (f"{GAMMA}__uniform", [False, True], "numbers"),
        (f"{GAMMA}__loguniform", [0, 1], "with low > 0, as it is logarithmic, got [0, 1]"),
        (f"{GAMMA}__quniform", [0.1, 0.9], "must be [low, high, q], numbers"),
        (f"{GAMMA}__quniform", [0.1, 0.2, 0.5], "a multiple of q in between"),
        (f"{GAMMA}__quniform", [0.1, 0.2, 0], "q > 0"),
        (f"{GAMMA}__randint", [0.5, 3], "whole numbers, got [0.5, 3]"),
        (f"{GAMMA}__randint", [3, 3], "low < high"),
        (f"{GAMMA}__randn", [0.9, 0], "all but the mean greater than 0"),
        (f"{GAMMA}__choice", [], "a list of different values, got []"),
        (f"{GAMMA}__choice", [[1], [1]], "a list of different values"),
        ("meta.seed__choice", [1, 2], "the path must begin with agent. or env."),
    ],
)
def test_what_is_wrong_is_one_line(key, arguments, text):
    with pytest.raises(SpecError) as error:
        SearchSpace(spec_of({key: arguments}))
    assert str(error.value).startswith(f"search.{key}: ")
    assert text in str(error.value)


def test_nothing_to_search_and_the_same_twice():
    with pytest.raises(SpecError, match="nothing to search"):
        SearchSpace(spec_of({}))
    with pytest.raises(SpecError, match=f"{GAMMA} stands there twice"):
        SearchSpace(spec_of({f"{GAMMA}__uniform": [0, 1], f"{GAMMA}__choice": [1]}))


def test_a_trial_has_a_complete_spec():
    spec = spec_of({f"{GAMMA}__choice": [0.9, 0.95], "agent.net.hid_layers__choice": [[8], [8, 8]]})
    spec = spec.with_meta(max_trial=3, search_algorithm="random")
    made = SearchSpace(spec).apply({GAMMA: 0.95, "agent.net.hid_layers": [8, 8]})
    assert made.agent.algorithm.gamma == 0.95
    assert made.agent.net.hid_layers == [8, 8]
    assert made.search == {}
    assert (made.meta.max_trial, made.meta.search_algorithm) == (None, None)
    # nothing else has changed
    wanted = spec.to_dict()
    wanted["agent"]["algorithm"]["gamma"], wanted["agent"]["net"]["hid_layers"] = 0.95, [8, 8]
    wanted["search"], wanted["meta"]["max_trial"], wanted["meta"]["search_algorithm"] = {}, None, None
    assert made.to_dict() == wanted


@pytest.mark.parametrize(
    ("search", "text"),
    [
        ({"agent.algorithm.gama__uniform": [0.9, 0.99]}, "agent.algorithm.gama: unknown key; did you mean 'gamma'?"),
        ({"agent.algorithm.gamma__uniform": [0.9, 1.1]}, "with gamma 1.1: agent.algorithm.gamma: must be at most 1"),
        ({"agent.algorithm.gamma__randn": [0.9, 0.1]}, "agent.algorithm.gamma: must be at most 1"),
        ({"agent.algorithm.gamma.x__uniform": [0.9, 1]}, "there is nothing called 'x'"),
        ({"env.name__choice": ["CartPole-v1", 3]}, "with env.name 3: env.name: must be text"),
    ],
)
def test_what_no_spec_comes_of_is_found_before_it_begins(search, text):
    with pytest.raises(SpecError) as error:
        SearchSpace(spec_of(search)).check()
    assert text in str(error.value)
    assert "-s" not in str(error.value)


MINIBATCH, HORIZON = "agent.algorithm.minibatch_size", "agent.algorithm.time_horizon"


def ppo_space(search):
    raw = load_spec("benchmark/ppo/ppo_cartpole.json", "ppo_cartpole").to_dict()
    algorithm = raw["agent"]["algorithm"] | {"time_horizon": 32, "minibatch_size": 64}
    agent = raw["agent"] | {"algorithm": algorithm}
    return SearchSpace(Spec.from_dict("ppo", raw | {"agent": agent, "env": raw["env"] | {"num_envs": 4}} | search))


@pytest.mark.parametrize(
    ("search", "example"),
    [
        ({f"{MINIBATCH}__qrandint": [32, 128, 32]}, "minibatch_size 96: "),  # within the range
        ({f"{MINIBATCH}__choice": [32, 64], f"{HORIZON}__choice": [32, 24]}, "minibatch_size 64, time_horizon 24: "),
    ],
)
def test_where_some_combinations_make_no_spec_their_share_is_named(search, example):
    lines = []
    sink = logger.add(lines.append, format="{message}")
    ppo_space({"search": search}).check()
    logger.remove(sink)
    (said,) = lines
    (count,) = re.findall(r"search: (\d+) of 50 combinations drawn at random make no spec; such trials fail", said)
    assert int(count) == pytest.approx(50 / 4, abs=8)
    assert f"e.g. with {example}" in said


def test_an_end_that_fits_nothing_and_ranges_that_do_not_meet_are_refused():
    with pytest.raises(SpecError, match=r"search: with minibatch_size 48, time_horizon 32: .*48"):
        ppo_space({"search": {f"{MINIBATCH}__choice": [32, 48], f"{HORIZON}__choice": [32, 64]}}).check()
    # both ends fit, and hardly anything between them
    with pytest.raises(SpecError, match=r"search: with minibatch_size \d+: "):
        ppo_space({"search": {f"{MINIBATCH}__randint": [64, 129]}}).check()


def test_what_fails_with_one_value_only_is_let_pass():
    def attempt(values):
        tried.append(values)
        if values["env.num_envs"] == 1 and values[GAMMA] == 0:
            raise SpecError("together")

    tried = []
    space = SearchSpace(spec_of({"env.num_envs__choice": [1, 2], f"{GAMMA}__uniform": [0, 1]}))
    space.refuse_bad(space.each_end(), attempt)
    assert len(tried) > 2


def test_every_corner_or_where_they_are_many_every_end():
    few = SearchSpace(spec_of({f"{GAMMA}__uniform": [0, 1], "env.max_frame__choice": [1, 2, 3]}))
    assert [tuple(corner.values()) for corner in few.corners()] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]
    many = SearchSpace(spec_of({f"agent.algorithm.key{index}__choice": [1, 2, 3] for index in range(8)}))
    corners = list(many.corners())
    assert len(corners) == MAX_CORNERS + 3
    assert all({corner[path] for corner in corners[:3]} == {1, 2, 3} for path in corners[0])


def test_a_grid_is_every_combination():
    space = SearchSpace(spec_of({f"{GAMMA}__grid_search": [0.9, 0.99], "env.max_frame__randint": [1, 4]}))
    assert not space.is_grid
    assert [tuple(point.values()) for point in space.grid()] == [(a, b) for a in (0.9, 0.99) for b in (1, 2, 3)]
    assert parameter("qrandint", [5, 30, 10]).grid == [10, 20, 30]
    assert [
        parameter("quniform", [0, 0.3, 0.1]).value(drawn) for drawn in parameter("quniform", [0, 0.3, 0.1]).grid
    ] == [
        0.0,
        0.1,
        0.2,
        0.3,
    ]
    with pytest.raises(SpecError, match=f"a grid needs finitely many values of {GAMMA}"):
        parameter("uniform", [0, 1]).grid  # noqa: B018


def test_names_are_as_short_as_they_can_be():
    paths = ["agent.net.optim_spec.lr", "agent.critic_net.optim_spec.lr", GAMMA]
    assert list(short_names(paths).values()) == ["net.optim_spec.lr", "critic_net.optim_spec.lr", "gamma"]
    assert short_names(["agent.algorithm.entropy_coef_spec.start_val"]).popitem()[1] == "entropy_coef_spec.start_val"
    assert show_values({GAMMA: 0.987654321, "agent.net.hid_layers": [8]}) == "gamma 0.9877, hid_layers [8]"


def test_search_sections_of_older_files():
    raw = load_spec("demo.json", "dqn_cartpole").to_dict()
    nested = {"agent": [{"algorithm": {"gamma__normal": [0.9, 0.01]}, "net": {"hid_layers_choice": [[8], [16]]}}]}
    meta = raw["meta"] | {"search_scheduler": {"time_attr": "frame", "grace_period": 1e4, "reduction_factor": 3}}
    from slm_lab.spec.upgrade import upgrade

    spec = Spec.from_dict("old", upgrade(json.loads(json.dumps(raw | {"search": nested, "meta": meta}))))
    first, second = SearchSpace(spec).parameters
    assert (first.path, first.normal) == (GAMMA, NormalDist(0.9, 0.01))
    assert (second.path, second.choices) == ("agent.net.hid_layers", ([8], [16]))
    assert (spec.meta.search_scheduler.grace_period, spec.meta.search_scheduler.reduction_factor) == (10_000, 3)


def test_values_are_spread_as_the_distribution_says():
    """By Optuna's own draws: a third of a logarithmic range gets a third of the draws."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = SearchSpace(
        spec_of({f"{GAMMA}__loguniform": [1e-3, 1], "env.max_frame__randint": [1, 4], "agent.name__choice": ["a", "b"]})
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [space.suggest(study.ask()) for _ in range(300)]
    for low, high in pairwise([1e-3, 1e-2, 1e-1, 1]):
        assert 70 < sum(low <= values[GAMMA] < high for values in drawn) < 130
    assert {values["env.max_frame"] for values in drawn} == {1, 2, 3}
    assert {values["agent.name"] for values in drawn} == {"a", "b"}
