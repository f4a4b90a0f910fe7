"""Writes what BENCHMARKS.md says of each algorithm into its page: `uv run python docs/measured.py`."""

from pathlib import Path

from slm_lab.experiment.benchmark import CURVES_HEAD, Result, best_results, frames_text, number_text
from slm_lab.experiment.benchmark_rows import read_page
from slm_lab.lib.table import markdown_table

DOCS = Path(__file__).parent
LABELS = {
    "reinforce": ["REINFORCE"],
    "sarsa": ["SARSA"],
    "a2c": ["A2C"],
    "ppo": ["PPO"],
    "dqn": ["VanillaDQN", "DQN", "DoubleDQN"],
    "rainbow": ["Rainbow"],
    "sac": ["SAC"],
    "td3": ["TD3"],
    "crossq": ["CrossQ"],
    "sil": ["SIL", "PPOSIL"],
    "distributed": ["A3C", "DPPO", "async SAC"],
}
"""Page -> what its agents are called in BENCHMARKS.md."""
ABOUT = """The newest run of the best spec in each place: the mean return of the last 100 episodes at each tenth of the
frames, averaged over the seeds. Scores with their intervals, single seeds, commits and all other runs are in
[the benchmarks](../BENCHMARKS.md).
"""


def section(page: str) -> str:
    """Return the section "Measured" of a page."""
    results = [result for result in read_page(DOCS / "BENCHMARKS.md") if result.algorithm in LABELS[page]]
    rows = [_row(result) for _, result in sorted(best_results(results).items())]
    head = ["environment", "spec", "seeds", "frames", *CURVES_HEAD[2:-1]]
    return f"## Measured\n\n{ABOUT}\n{markdown_table(head, rows)}"


def _row(result: Result) -> list[str]:
    curve = map(number_text, result.curve)
    return [result.env, result.spec_name, str(len(result.scores)), frames_text(result.max_frame), *curve]


def main() -> None:
    """Write all of them."""
    for page in LABELS:
        file = DOCS / "algorithms" / f"{page}.md"
        above, _, _ = file.read_text(encoding="utf-8").partition("## Measured")
        file.write_text(above + section(page), encoding="utf-8")


if __name__ == "__main__":
    main()
