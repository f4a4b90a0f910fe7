"""Older forms of specs, brought to the current one. Each change says so in one line, and nothing else is changed."""

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

from slm_lab.spec.algorithm import ALGORITHMS
from slm_lab.spec.errors import SpecError, warn
from slm_lab.spec.memory import MEMORIES, REPLAYS, PrioritizedReplay
from slm_lab.spec.net import NETS, ROLES, NetSpec

Raw = dict[str, Any]

ENV_NAMES: dict[str, str] = {
    r"CartPole-v0": "CartPole-v1",
    r"Pendulum-v0": "Pendulum-v1",
    r"LunarLander(Continuous)?-v2": r"LunarLander\1-v3",
    r"BipedalWalker(Hardcore)?-v2": r"BipedalWalker\1-v3",
    r"(\w+)NoFrameskip-v4": r"ALE/\1-v5",
    r"Roboschool(Ant|HalfCheetah|Hopper|Walker2d|Humanoid)-v\d": r"\1-v5",
    r"(Ant|HalfCheetah|Hopper|Walker2d|Humanoid|HumanoidStandup)-v[23]": r"\1-v5",
    r"(Swimmer|Reacher|Pusher|InvertedPendulum|InvertedDoublePendulum)-v[23]": r"\1-v5",
}
"""Environments that gymnasium has under another name now: pattern of the old name -> the new one."""
OLDER_ENV_KEYS = ("normalize_state", "scale_obs")
"""Keys of `env` that have another name or place now."""

UNREAD: dict[str, tuple[str, ...]] = {
    "": ("body",),
    "agent.algorithm": ("clip_val_loss", "symlog_transform"),
    "env": ("vectorization_mode", "device"),
    "meta": ("train_mode", "search", "num_cpus", "num_gpus"),
    "meta.search_scheduler": ("metric", "mode", "time_attr", "max_t", "brackets"),
}
"""Keys of older files that nothing ever read, or nothing can be done with here: section -> keys."""
_UNREAD_BY_SAC = (
    "training_batch_iter",
    "target_entropy_epsilon",
    "entropy_anneal",
    "entropy_penalty_coef",
    "alpha_anneal_frames",
    "symlog",
)
UNREAD_BY_KIND: dict[str, tuple[str, ...]] = {
    "PPO": ("training_frequency",),  # it is the time_horizon
    "PPOSIL": ("training_frequency",),
    "SARSA": ("action_pdtype",),
    "VanillaDQN": ("action_pdtype",),
    "DQN": ("action_pdtype",),
    "DoubleDQN": ("action_pdtype",),
    "SoftActorCritic": _UNREAD_BY_SAC,
    "CrossQ": _UNREAD_BY_SAC,
    "Random": ("action_pdtype", "action_policy", "training_frequency"),
    "MLPNet": ("normalize",),
    "ConvNet": ("layer_norm",),
    "HydraMLPNet": ("normalize",),
    "RecurrentNet": ("normalize", "bidirectional"),  # to act is to know the past only
    "DuelingMLPNet": ("normalize",),
    "DuelingConvNet": ("layer_norm",),
    "OnPolicyReplay": ("batch_size", "max_size", "use_cer"),
    "OnPolicyCrossEntropy": ("batch_size", "max_size", "use_cer"),
    "OnPolicyBatchReplay": ("batch_size", "max_size", "use_cer"),
    "Replay": ("alpha", "epsilon"),
}
"""The same, by the kind of algorithm, memory or net."""
RUN_TIME = re.compile(
    r"experiment|trial|session|cuda_offset|resume|experiment_ts|git_sha|random_seed|predir|(\w+_)?prepath"
)
"""Keys of `meta` that the older lab filled in when it ran."""
NOT_YET: dict[str, Any] = {"normalize_v_targets": False, "symlog": False, "normalize_advantages": "standardize"}
"""Keys that not every algorithm has in this version, and the value that means the same as leaving them out."""
ALGORITHM_NAMES = {"HydraDQN": "DQN", "DQNBase": "VanillaDQN"}
OPTIMIZERS = {"GlobalAdam": "Adam", "GlobalRMSprop": "RMSprop"}


def upgrade(raw: Raw) -> Raw:
    """Return a raw spec in the current form.

    Raises:
        SpecError: it asks for something that has no current form.
    """
    raw = copy.deepcopy(raw)
    for step in _STEPS:
        step(raw)
    return raw


def _unwrap_lists(raw: Raw) -> None:
    for key in ("agent", "env", "search"):
        value = raw.get(key)
        if not isinstance(value, list):
            continue
        if len(value) != 1:
            raise SpecError(f"{key}: a list of {len(value)}; a spec has one, {{…}}")
        raw[key] = value[0]
        _say(f"{key}: [{{…}}] is read as {{…}}")


def _relax_gpu(raw: Raw) -> None:
    """Read `gpu: true` of version 4, which every spec of it shows by its body, as what it meant."""
    net = _at(raw, "agent.net")
    if "body" in raw and net.get("gpu") is True:
        net["gpu"] = "auto"
        _say("agent.net.gpu: true is read as auto, a GPU where there is one, as it always was")


def _rename_algorithm(raw: Raw) -> None:
    algorithm = _at(raw, "agent.algorithm")
    policy = str(algorithm.get("action_policy"))
    if policy.startswith("multi_"):
        algorithm["action_policy"] = policy.removeprefix("multi_")
        _say(f"agent.algorithm.action_policy: {policy} is read as {algorithm['action_policy']}")
    if new := ALGORITHM_NAMES.get(str(algorithm.get("name"))):
        _say(f"agent.algorithm.name: {algorithm['name']} is read as {new}")
        algorithm["name"] = new


def _nest_sil_replay(raw: Raw) -> None:
    """Put the keys of the replay of past episodes, which stood among those of the on-policy memory, into their own."""
    memory = _at(raw, "agent.memory")
    if _at(raw, "agent.algorithm").get("name") not in ("SIL", "PPOSIL"):
        return
    if memory.get("sil_replay") is None:
        given = [key for key in PrioritizedReplay.model_fields if key != "name" and key in memory]
        if not given and "sil_replay_name" not in memory:
            return  # nothing to read; what is missing, the check of SIL says
        kind = memory.pop("sil_replay_name", None) or "Replay"
        read = REPLAYS.get(str(kind), PrioritizedReplay).model_fields
        values = {key: memory.pop(key) for key in given}
        keys = {key: value for key, value in values.items() if key in read}
        memory["sil_replay"] = {"name": kind, **keys}
        _say(f"agent.memory: {', '.join(keys)} are read as those of sil_replay {kind}")
    replay = _at(memory, "sil_replay")
    if replay.get("name") == "PrioritizedReplay" and replay.get("beta_spec") is None:
        replay["beta_spec"] = {"name": "no_decay", "start_val": 0.1}
        _say("agent.memory.sil_replay.beta_spec: missing; 0.1 throughout, as in the paper")


def _drop_unread(raw: Raw) -> None:
    for section, keys in UNREAD.items():
        for key in keys:
            _drop(raw, section, key, "nothing reads it; ignored")
    parts = (("agent.algorithm", "name"), ("agent.memory", "name"), ("agent.net", "type"), ("agent.critic_net", "type"))
    for section, by in parts:
        kind = _at(raw, section).get(by)
        for key in UNREAD_BY_KIND.get(str(kind), ()):
            _drop(raw, section, key, f"{kind} does not read it; ignored")
    filled_in = [key for key in _at(raw, "meta") if RUN_TIME.fullmatch(key)]
    for key in filled_in:
        del raw["meta"][key]
    if filled_in:
        _say(f"meta: {', '.join(filled_in)}: left by an older run; ignored")


def _drop_empty(raw: Raw) -> None:
    """Remove the nulls that say no more than that another kind's key does not apply."""
    for section, kinds, by in (
        ("agent.algorithm", ALGORITHMS, "name"),
        ("agent.memory", MEMORIES, "name"),
        ("agent.net", NETS, "type"),
        ("agent.critic_net", NETS, "type"),
    ):
        part = _at(raw, section)
        kind = kinds.get(str(part.get(by)))
        known = {key for other in kinds.values() for key in other.model_fields}
        for key in [key for key, value in part.items() if value is None and kind and key not in kind.model_fields]:
            if key in known:
                del part[key]


def _drop_not_yet(raw: Raw) -> None:
    algorithm = _at(raw, "agent.algorithm")
    kind = ALGORITHMS.get(str(algorithm.get("name")))
    for key, neutral in NOT_YET.items():
        if kind and key in kind.model_fields:
            continue
        if algorithm.get(key, neutral) != neutral:
            raise SpecError(f"agent.algorithm.{key}: {algorithm[key]!r} is not in this version; remove the key")
        algorithm.pop(key, None)


def _train_alone(raw: Raw) -> None:
    meta = _at(raw, "meta")
    if meta.get("distributed") in (True, "synced", "shared") and meta.get("max_session", 1) == 1:
        warn(f'meta.distributed: "{meta["distributed"]}" is read as false, as one session has nobody to train with')
        meta["distributed"] = False


def _empty_random(raw: Raw) -> None:
    if _at(raw, "agent.algorithm").get("name") == "Random":
        for key in ("memory", "net", "critic_net"):
            _drop(raw, "agent", key, "Random has none; ignored")


def _fix_algorithm(raw: Raw) -> None:
    algorithm = _at(raw, "agent.algorithm")
    if algorithm.get("action_pdtype") == "NormalTanh":  # was in spec files, but never in the lab
        algorithm["action_pdtype"] = "default"
        warn("agent.algorithm.action_pdtype: there is no NormalTanh; read as default")
    steps, frequency = algorithm.get("num_step_returns"), algorithm.get("training_frequency")
    if algorithm.get("name") in ("ActorCritic", "SIL") and steps is not None and frequency not in (None, steps):
        algorithm["training_frequency"] = steps
        warn(f"agent.algorithm.training_frequency: {frequency} is read as num_step_returns {steps}, as it always was")


def _move_target(raw: Raw) -> None:
    net = _at(raw, "agent.net")
    if _at(raw, "agent.algorithm").get("name") not in ("DQN", "DoubleDQN") or net.get("update_type") != "polyak":
        return
    if net.get("polyak_coef") == 0:
        net["update_type"] = "replace"
        del net["polyak_coef"]
        warn("agent.net.polyak_coef: 0 would never move the target net; read as update_type replace")


def _draw_sequences(raw: Raw) -> None:
    """Drop what a replay cannot do where it is to hand out sequences."""
    for place in ("agent.memory", "agent.memory.sil_replay"):
        memory = _at(raw, place)
        if _at(raw, "agent.net").get("type") == "RecurrentNet" and memory.get("use_cer"):
            memory["use_cer"] = False
            warn(f"{place}.use_cer: true is read as false, as a RecurrentNet learns from sequences")


def _move_spectral_norm(raw: Raw) -> None:
    algorithm, agent = _at(raw, "agent.algorithm"), _at(raw, "agent")
    if algorithm.get("name") not in ("SoftActorCritic", "CrossQ") or "spectral_norm" not in algorithm:
        return
    wanted = algorithm.pop("spectral_norm")
    own = bool(agent.get("critic_net"))
    net, key = _at(agent, "critic_net" if own else "net"), "spectral_norm" if own else "critic_spectral_norm"
    if "spectral_norm" not in getattr(NETS.get(str(net.get("type"))), "model_fields", {}):
        warn(f"agent.algorithm.spectral_norm: a {net.get('type')} has none; ignored")
    elif wanted:
        net[key] = True
        _say("agent.algorithm.spectral_norm is read as that of the critics' net")


def _fill_minibatch(raw: Raw) -> None:
    """Give PPO the minibatch of old: 4 transitions, rounded up to what the rollout is made of."""
    algorithm, net = _at(raw, "agent.algorithm"), _at(raw, "agent.net")
    if algorithm.get("name") not in ("PPO", "PPOSIL") or algorithm.get("minibatch_size") is not None:
        return
    unit = net.get("seq_len") if net.get("type") == "RecurrentNet" else _at(raw, "env").get("num_envs", 1)
    if "time_horizon" in algorithm and isinstance(unit, int) and unit > 0:
        algorithm["minibatch_size"] = -(-4 // unit) * unit
        _say(f"agent.algorithm.minibatch_size: missing; {algorithm['minibatch_size']}, as it always was")


def _anneal_beta(raw: Raw) -> None:
    memory, frames = _at(raw, "agent.memory"), _at(raw, "env").get("max_frame")
    if (
        memory.get("name") == "PrioritizedReplay"
        and memory.get("beta_spec") is None
        and isinstance(frames, int | float)
    ):
        memory["beta_spec"] = {"name": "linear_decay", "start_val": 0.4, "end_val": 1.0, "end_step": frames}
        _say(f"agent.memory.beta_spec: missing; from 0.4 to 1 at env.max_frame {frames:g}")


def _share_specs(raw: Raw) -> None:
    """Give a shared net what its actor was given, as was always done."""
    net = _at(raw, "agent.net")
    if net.get("shared") is not True:
        return
    for role in reversed(ROLES):  # the actor last: it is what counts
        for key in [key for key in net if key.startswith(f"{role}_") and key not in NetSpec.model_fields]:
            plain, value = key.removeprefix(f"{role}_"), net.pop(key)
            if role == "actor":
                net[plain] = value
                _say(f"agent.net.{key}: the net is shared; read as {plain}")
            else:
                _say(f"agent.net.{key}: the net is shared, so the actor's counts; ignored")


def _rename_optimizers(raw: Raw) -> None:
    for path, spec in _optimizers(raw):
        name = spec.get("name")
        if isinstance(name, str) and name in OPTIMIZERS:
            spec["name"] = OPTIMIZERS[name]
            _say(f"{path}.name: {name} is read as {spec['name']}")
        elif name == "Lookahead":
            spec["name"] = spec.pop("optimizer", "Adam")
            for key in ("alpha", "k"):
                spec.pop(key, None)
            warn(f"{path}.name: there is no Lookahead here; read as the {spec['name']} inside it")


def _optimizers(raw: Raw) -> Iterator[tuple[str, Raw]]:
    for net in ("net", "critic_net"):
        for key, spec in _at(raw, f"agent.{net}").items():
            if key.endswith("optim_spec") and isinstance(spec, dict):
                yield f"agent.{net}.{key}", spec


def _rename_env(raw: Raw) -> None:
    env, net = _at(raw, "env"), _at(raw, "agent.net")
    name = env.get("name")
    for pattern, new in ENV_NAMES.items():
        if isinstance(name, str) and (match := re.fullmatch(pattern, name)):
            env["name"] = match.expand(new)
            _say(f"env.name: {name} is read as {env['name']}")
            break
    if "normalize_state" in env:
        env["normalize_obs"] = env.pop("normalize_state")
        _say("env.normalize_state is read as env.normalize_obs")
    if env.pop("scale_obs", False) is True:
        for part in filter(None, (net, _at(raw, "agent.critic_net"))):
            part["normalize"] = True
        _say("env.scale_obs is read as normalize of the net: the replay keeps bytes")
    if str(net.get("type")) in NETS and net["type"] != "RecurrentNet" and "seq_len" in net:
        length = net.pop("seq_len")
        env |= {"frame_op": "stack", "frame_op_len": length} if env.get("frame_op") is None else {}
        _say(f"agent.net.seq_len: {length} is read as env.frame_op stack of as many")


def _flatten_search(raw: Raw) -> None:
    search = raw.get("search")
    if not isinstance(search, dict):
        return
    flat = dict(_leaves(search))
    if flat != search:
        raw["search"] = flat
        _say("search: keys are read as paths, e.g. " + next(iter(flat), "agent.algorithm.gamma__uniform"))


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if "__" in path.rpartition(".")[2]:
        yield path.replace("agent.0.", "agent.").replace("env.0.", "env."), node
    elif isinstance(node, dict):
        for key, child in node.items():
            name = re.sub(r"(?<!_)_(choice)$", r"__\1", key)  # two files have one _ too few
            name = re.sub(r"__normal$", "__randn", name)
            yield from _leaves(child, f"{path}.{name}" if path else name)
    elif isinstance(node, list) and len(node) == 1:
        yield from _leaves(node[0], path)
    else:
        yield path, node


_STEPS: tuple[Callable[[Raw], None], ...] = (
    _unwrap_lists,
    _relax_gpu,
    _rename_algorithm,
    _nest_sil_replay,
    _move_spectral_norm,
    _drop_unread,
    _drop_empty,
    _drop_not_yet,
    _train_alone,
    _empty_random,
    _fix_algorithm,
    _move_target,
    _draw_sequences,
    _fill_minibatch,
    _anneal_beta,
    _share_specs,
    _rename_optimizers,
    _rename_env,
    _flatten_search,
)


def _at(raw: Raw, path: str) -> Raw:
    """Return the section at `path`; an empty one where there is none."""
    node: Any = raw
    for part in path.split(".") if path else ():
        node = node.get(part) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}


def _drop(raw: Raw, section: str, key: str, why: str) -> None:
    part = _at(raw, section)
    if key in part:
        del part[key]
        warn(f"{section}.{key}: {why}" if section else f"{key}: {why}")


def _say(line: str) -> None:
    from loguru import logger  # only where there is something to say: it takes a while to import

    logger.info(line)
