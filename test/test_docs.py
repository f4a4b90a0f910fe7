"""The pages are true: every algorithm, net and memory has its place, keys are those of the specs, examples build."""

import re
import sys
from pathlib import Path

import pytest
import torch

from slm_lab.agent.net import make_net
from slm_lab.agent.net.history import History
from slm_lab.spec import Spec, list_specs
from slm_lab.spec.algorithm import ALGORITHMS
from slm_lab.spec.memory import MEMORIES
from slm_lab.spec.net import NETS, NetSpec
from slm_lab.spec.parse import parse_json

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))
from measured import section  # noqa: E402

PAGES = sorted((DOCS / "algorithms").glob("*.md"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
ALGORITHMS_OF = {
    "reinforce": ["Reinforce"],
    "sarsa": ["SARSA"],
    "dqn": ["VanillaDQN", "DQN", "DoubleDQN"],
    "a2c": ["ActorCritic"],
    "ppo": ["PPO"],
    "sil": ["SIL", "PPOSIL"],
    "sac": ["SoftActorCritic"],
    "td3": ["TD3"],
    "crossq": ["CrossQ"],
}
"""Page -> the algorithms whose keys it lists."""
ELSEWHERE = {"sil": ["a2c", "ppo"], "crossq": ["sac"]}
"""Page -> pages that list the rest of its keys."""
OBVIOUS = {"name", "action_policy"}
"""Keys that a page need not list."""
ON_POLICY = {"name": "ActorCritic", "gamma": 0.99, "lam": 0.95, "training_frequency": 8}
Q_LEARNING = {"name": "DoubleDQN", "action_policy": "greedy", "gamma": 0.99, "training_frequency": 4}


def text_of(page):
    return (DOCS / f"{page}.md").read_text(encoding="utf-8")


def words(text):
    """The words that a text has between backticks."""
    return set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", text))))


def examples(page, part):
    """The blocks of a page that show a part of `agent`."""
    blocks = re.findall(r"^```json\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)
    return [parse_json(f"{{{block}}}")[part] for block in blocks]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_what_was_measured(page):
    assert page.read_text(encoding="utf-8").endswith(section(page.stem)), "run docs/measured.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_complete(page):
    text = page.read_text(encoding="utf-8")
    assert re.search(r"\b(19|20)\d\d\b, ", text), "no paper"
    assert "```" in text or "|" in text, "no pseudocode"
    assert re.search(r"^## Where we differ$", text, re.MULTILINE)
    assert re.search(r"^## Keys", text, re.MULTILINE)
    assert re.search(r"^## Measured$", text, re.MULTILINE)


@pytest.mark.parametrize("page", [*(f"algorithms/{page.stem}" for page in PAGES), "nets", "memories"])
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text_of(page)):
        assert ((DOCS / page).parent / link).is_file(), link


@pytest.mark.parametrize("page", ALGORITHMS_OF)
def test_a_page_lists_the_keys_of_its_algorithms(page):
    listed = words(text_of(f"algorithms/{page}"))
    for other in ELSEWHERE.get(page, []):
        listed |= words(text_of(f"algorithms/{other}"))
    for algorithm in ALGORITHMS_OF[page]:
        assert ALGORITHMS[algorithm].model_fields.keys() - OBVIOUS - listed == set()


@pytest.mark.parametrize("page", ALGORITHMS_OF)
def test_a_page_lists_no_other_keys(page):
    keys = text_of(f"algorithms/{page}").partition("## Keys of `agent.algorithm`")[2].partition("\n\nMemory")[0]
    rows = re.findall(r"^\| (`.*?) \|", keys.partition("\n## ")[0], re.MULTILINE)
    known = set().union(*(ALGORITHMS[name].model_fields for name in ALGORITHMS_OF[page]))
    assert words(" ".join(rows)) <= known
    assert rows or page in ELSEWHERE


def test_every_algorithm_has_a_page():
    assert {name for names in ALGORITHMS_OF.values() for name in names} == ALGORITHMS.keys() - {"Random"}


def test_every_folder_of_specs_has_a_page_that_names_it():
    texts = " ".join(page.read_text(encoding="utf-8") for page in PAGES)
    folders = {Path(file).parent.name for file, _, _ in list_specs() if file.startswith("benchmark/")}
    assert len(folders) > 10
    for folder in folders:
        assert f"slm_lab/spec/benchmark/{folder}/" in texts
        assert f"`{folder}/`" in README


def test_the_readme_names_all_there_is():
    assert {*ALGORITHMS, *NETS, *MEMORIES} <= words(README)
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / link).is_file(), link
    assert {f"docs/algorithms/{page.name}" for page in PAGES} <= set(re.findall(r"\((docs/[^)]+)\)", README))


def made(net, **keys):
    """Build a net on two outputs; return what it puts out for two observations."""
    dueling = net["type"].startswith("Dueling")
    algorithm = Q_LEARNING if dueling else ON_POLICY
    memory = {"name": "Replay", "batch_size": 8, "max_size": 100} if dueling else {"name": "OnPolicyBatchReplay"}
    agent = {"algorithm": algorithm, "memory": memory, "net": net}
    spec = Spec.from_dict("doc", {"agent": agent, "env": {"name": "CartPole-v1", "max_frame": 100}})
    shape = (4, 84, 84) if "Conv" in net["type"] else (4,)
    built = make_net(spec.agent.net, shape, [3] if dueling else [3, 1])
    obs = torch.zeros(2, *shape)
    first = torch.ones(1, 2, dtype=torch.bool)
    return built(History(obs.unsqueeze(0), first, None) if built.state_size else obs)


def test_every_net_has_an_example():
    shown = [net["type"] for net in examples("nets", "net")]
    assert {*NETS, "my_nets:Tower"} == set(shown)


@pytest.mark.parametrize("net", examples("nets", "net"), ids=lambda net: net["type"])
def test_an_example_of_a_net_builds(net, tmp_path, monkeypatch):
    (code,) = re.findall(r"^```python\n(.*?)^```$", text_of("nets"), re.MULTILINE | re.DOTALL)
    (tmp_path / "my_nets.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)  # of another test
    assert made(net)[0].shape == (2, 3)


def test_every_key_of_the_nets_is_explained():
    explained = words(text_of("nets"))
    for net in [NetSpec, *NETS.values()]:
        assert net.model_fields.keys() - {"type"} <= explained


def test_every_memory_has_an_example_and_its_keys_are_explained():
    shown = {memory["name"]: memory for memory in examples("memories", "memory")}
    assert shown.keys() == MEMORIES.keys()
    for name, memory in MEMORIES.items():
        memory.model_validate(shown[name])
        assert memory.model_fields.keys() - {"name"} <= words(text_of("memories"))
