"""Run folders made by hand: rows that a test knows, and the metrics that come of them, without training."""

from slm_lab.experiment.analysis import session_metrics, trial_metrics
from slm_lab.experiment.paths import new_run
from slm_lab.lib.files import atomic_write, read_rows, rows_text, write_json

EVERY = 100.0  # frames between rows


def made_run(data, name, curves, env="CartPole-v1", label="PPO", baseline=0.0, **meta):
    """Leave a run whose seeds have these returns, a row every 100 frames."""
    paths = new_run(data, name)
    frames = EVERY * max(len(curve) for curve in curves)
    spec = {
        "agent": {"name": label, "algorithm": {"name": "PPO"}},
        "env": {"name": env, "max_frame": int(frames)},
        "meta": {"max_session": len(curves), "log_frequency": 100, "seed": 3} | meta,
    }
    for file in (paths.spec, paths.trial_spec):
        write_json(file, {name: spec})
    metrics = {}
    for index, curve in enumerate(curves):
        columns = {"total_reward": curve, "frame": [EVERY * (row + 1) for row in range(len(curve))]}
        columns |= {"wall_t": columns["frame"]}
        for mode in ("train", "eval"):
            atomic_write(paths.for_session(index).session_df(mode), rows_text(columns))
        metrics[index] = session_metrics(read_rows(paths.for_session(index).session_df("train")), baseline)
    write_json(paths.trial_metrics, trial_metrics(metrics, baseline))
    derived = {"spec_hash": "abcdef012345", "mode": "train", "git_commit": "0" * 40}
    write_json(paths.info_dir / f"{paths.trial_prefix}_derived.json", derived)
    return paths
