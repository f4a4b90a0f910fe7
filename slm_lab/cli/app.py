"""Sub-commands, flags and exit codes of `slm-lab` and `slm-retro`.

Exit codes: 0 done, 1 a run failed, 2 bad input, 130 stopped by Ctrl-C after a clean save.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, cast

import typer
from typer.core import TyperGroup

DONE, FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 130
DEMO_FILE, DEMO_NAME = "slm_lab/spec/demo.json", "dqn_cartpole"

HELP = """SLM Lab: deep reinforcement learning from a spec file.

\b
slm-lab                                      the demo: DQN on CartPole
slm-lab spec.json name                       a quick look: one session, MODE dev
slm-lab spec.json name train                 train all sessions (seeds) of a spec
slm-lab spec.json name train@latest          resume the newest run; also train@data/RUN
slm-lab spec.json name enjoy@data/RUN        replay the best checkpoint
slm-lab spec.json name search                search with Ray and Optuna; search@latest goes on
slm-lab best data/RUN --train                train what a search has found
slm-lab -s env=ALE/Pong-v5 spec.json name train
slm-lab --job job/experiments.json           a batch, in file order
slm-lab benchmark-table data                 what the runs came to, as a table
slm-lab compare data/A data/B                which is better, and how surely
slm-lab plot -f A,B -t TITLE                 their curves in one graph
slm-lab run-remote --gpu spec.json name train
slm-lab push data/RUN                        to a Hugging Face repository; also pull, list --remote
"""


class _Group(TyperGroup):
    """Shows the flags of `run` in the help of the program, where a user of the three-word form looks for them."""

    def format_options(self, ctx, formatter) -> None:  # noqa: ANN001 - typer does not export these types
        self.commands["run"].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


# Plain help: the coloured one takes 0.2 s more to import.
app = typer.Typer(
    cls=_Group,
    help=HELP,
    subcommand_metavar="[SPEC_FILE] [SPEC_NAME] [MODE] | COMMAND [ARGS]...",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        envvar="SET",
        help="Fill ${KEY} in the spec; a KEY with a dot is a path into it, e.g. env.max_frame=1e6. May be repeated.",
    ),
]
Data = Annotated[Path, typer.Option("--data", metavar="DIR", envvar="DATA_DIR", help="Where runs are written.")]
Repo = Annotated[
    str | None,
    typer.Option("--repo", metavar="USER/NAME", envvar="HF_REPO", help="The Hugging Face dataset repository."),
]
LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR"],
    typer.Option(envvar="LOG_LEVEL", case_sensitive=False, help="The least important messages to show."),
]


@app.command()
def run(
    spec_file: Annotated[str | None, typer.Argument(help="JSON or YAML file; shipped ones by short name too.")] = None,
    spec_name: Annotated[
        str | None, typer.Argument(help="A spec in it; may be left out if it is the only one.")
    ] = None,
    mode: Annotated[
        str, typer.Argument(help="dev, train, train@RUN, enjoy@RUN, search or search@RUN; RUN may be 'latest'.")
    ] = "dev",
    sets: Sets = None,
    job: Annotated[
        Path | None, typer.Option(metavar="FILE", envvar="JOB", help="Run the entries {file: {name: mode}} of FILE.")
    ] = None,
    parallel: Annotated[
        int, typer.Option(metavar="N", envvar="PARALLEL", min=1, help="job: run N entries at once.")
    ] = 1,
    data: Data = Path("data"),
    render: Annotated[bool, typer.Option("--render", envvar="RENDER", help="Show the environment.")] = False,
    record: Annotated[bool, typer.Option("--record", envvar="RECORD", help="enjoy: write an mp4.")] = False,
    episodes: Annotated[int, typer.Option(envvar="EPISODES", min=1, help="enjoy: episodes to play.")] = 10,
    serial: Annotated[bool, typer.Option("--serial", envvar="SERIAL", help="search: in this process, no Ray.")] = False,
    keep: Annotated[
        int, typer.Option(envvar="KEEP_TRIALS", min=-1, help="search: keep the models of the best N trials; -1: all.")
    ] = 3,
    ray_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", envvar="RAY_ADDRESS", help="search: on this Ray cluster.")
    ] = None,
    log_level: LogLevel = "INFO",
    torch_compile: Annotated[
        Literal["auto", "true", "false"],
        typer.Option(envvar="TORCH_COMPILE", case_sensitive=False, help="Compile the gradient steps."),
    ] = "auto",
    cuda_offset: Annotated[int, typer.Option(envvar="CUDA_OFFSET", min=0, help="The first GPU to use.")] = 0,
    profile: Annotated[
        Literal["false", "true", "cpu", "gpu"],
        typer.Option(envvar="PROFILE", case_sensitive=False, help="Write a trace of the first updates."),
    ] = "false",
) -> int:
    """Run a spec: the three-word form, with its name (without arguments: the demo)."""
    from slm_lab.cli import job as jobs
    from slm_lab.cli import run as runs
    from slm_lab.experiment.options import RunOptions
    from slm_lab.lib.logger import setup_logger
    from slm_lab.spec.errors import SpecError

    setup_logger(log_level)
    options = RunOptions(render, torch_compile, cuda_offset, profile, log_level)
    settings = runs.Settings(tuple(sets or ()), data, options, record, episodes, serial, keep, ray_address)
    if job is not None:
        if spec_file is not None:
            raise SpecError(f"--job {job} names its own specs; leave out {spec_file!r}")
        return jobs.run_job(job, settings, parallel)
    if spec_file is None:
        spec_file, spec_name = DEMO_FILE, DEMO_NAME
    runs.run(spec_file, spec_name, mode, settings)
    return DONE


@app.command()
def best(
    folder: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a search.")],
    train: Annotated[bool, typer.Option("--train", help="Train it, with more seeds.")] = False,
    sets: Sets = None,
    data: Data = Path("data"),
    log_level: LogLevel = "INFO",
) -> int:
    """Print the best trial of a search: its score, its values and its spec; or train it."""
    from slm_lab.cli import run as runs
    from slm_lab.experiment.options import RunOptions
    from slm_lab.lib.logger import setup_logger

    setup_logger(log_level)
    runs.best(folder, train, runs.Settings(tuple(sets or ()), data, RunOptions(log_level=log_level)))
    return DONE


@app.command()
def check(
    spec_file: Annotated[str, typer.Argument(help="A spec file; with --all also a folder.")],
    spec_name: Annotated[str | None, typer.Argument(help="A spec in it.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every spec of the file or folder, a line each.")] = False,
    sets: Sets = None,
    log_level: LogLevel = "WARNING",
) -> int:
    """Check a spec: print what it resolves to, the size of its nets and of its memory. Builds nothing heavy."""
    from slm_lab.cli import check as checks
    from slm_lab.lib.logger import setup_logger
    from slm_lab.spec.errors import SpecError

    setup_logger(log_level)
    if every and spec_name is not None:
        raise SpecError(f"--all checks every spec; leave out {spec_name!r}")
    if every:
        return DONE if checks.check_all(spec_file, sets or ()) else BAD_INPUT
    checks.check_one(spec_file, spec_name, sets or ())
    return DONE


@app.command(name="list")
def list_(
    word: Annotated[str, typer.Argument(help="Only the lines that contain it.")] = "",
    remote: Annotated[bool, typer.Option("--remote", help="The runs of a Hugging Face repository instead.")] = False,
    repo: Repo = None,
    data: Data = Path("data"),
) -> int:
    """List the specs that ship with the lab, or the runs of a Hugging Face repository."""
    if remote:
        from slm_lab.cli import hub

        hub.list_runs(word, repo, data)
    else:
        from slm_lab.cli import check as checks

        checks.list_shipped(word)
    return DONE


@app.command()
def push(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    repo: Repo = None,
    log_level: LogLevel = "INFO",
) -> int:
    """Copy runs to a Hugging Face dataset repository: JSON, CSV and safetensors."""
    from slm_lab.cli import hub

    hub.push_runs(runs, repo, log_level)
    return DONE


@app.command()
def pull(
    pattern: Annotated[str, typer.Argument(help="Runs whose name contains it.")],
    repo: Repo = None,
    data: Data = Path("data"),
    max_size: Annotated[float, typer.Option(metavar="GB", min=0.0, help="A larger run is not fetched.")] = 10.0,
    log_level: LogLevel = "INFO",
) -> int:
    """Copy runs from a Hugging Face dataset repository. Nothing in them is ever unpickled."""
    from slm_lab.cli import hub

    hub.pull_runs(pattern, repo, data, max_size, log_level)
    return DONE


@app.command(name="benchmark-table")
def benchmark_table(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders of runs.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Write the page there, e.g. docs/BENCHMARKS.md; other runs in it stay."
        ),
    ] = None,
    log_level: LogLevel = "INFO",
) -> int:
    """Make a Markdown table of what runs came to: environments by algorithms, then every run."""
    from slm_lab.experiment.benchmark import benchmark_page
    from slm_lab.experiment.benchmark_rows import extended_page
    from slm_lab.lib.files import atomic_write
    from slm_lab.lib.logger import setup_logger

    setup_logger(log_level)
    page = extended_page(out, runs) if out is not None and out.exists() else benchmark_page(runs)
    if out is None:
        print(page, end="")  # noqa: T201 - the result of the command
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(out, page)
    return DONE


@app.command()
def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Run folders, or folders of runs; NAME=… gives them a name.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where page, CSV files and figures are written.")
    ] = Path("data/comparison"),
    reference: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON {environment: score that is to count as 1}.")
    ] = None,
    log_level: LogLevel = "INFO",
) -> int:
    """Compare runs over environments and seeds: IQM, mean, median, probability of improvement, profiles, curves."""
    from slm_lab.experiment.compare import compare as read_runs
    from slm_lab.experiment.comparison_page import Summary, terminal_text, write_all
    from slm_lab.lib.logger import setup_logger

    setup_logger(log_level)
    summary = Summary(read_runs(runs, reference))
    write_all(summary, out)
    print(f"{terminal_text(summary)}\nfiles  {out}")  # noqa: T201 - the result of the command
    return DONE


@app.command()
def plot(
    folders: Annotated[str, typer.Option("--folders", "-f", metavar="A,B", help="Run folders, by name or by path.")],
    title: Annotated[
        str | None, typer.Option("--title", "-t", help="Of the graphs, and what their names begin with.")
    ] = None,
    labels: Annotated[str | None, typer.Option("--labels", "-l", metavar="A,B", help="One for each folder.")] = None,
    data: Annotated[
        Path, typer.Option("--data", "-d", metavar="DIR", envvar="DATA_DIR", help="Where the runs are.")
    ] = Path("data"),
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the graphs are written.")] = Path(
        "docs/plots"
    ),
    log_level: LogLevel = "INFO",
) -> int:
    """Draw the learning curves of several runs in one graph: the mean over the seeds of each, and one deviation."""
    from slm_lab.experiment.multi_trial import plot_runs
    from slm_lab.lib.logger import setup_logger

    setup_logger(log_level)
    names = [_split(text) for text in (folders, labels or "")]
    for file in plot_runs(names[0], data, out, title, names[1]):
        print(file)  # noqa: T201 - the result of the command
    return DONE


@app.command(name="run-remote")
def run_remote(
    spec_file: Annotated[str, typer.Argument(help="A spec file of the repository; shipped ones by short name too.")],
    spec_name: Annotated[str, typer.Argument(help="A spec in it.")],
    mode: Annotated[str, typer.Argument(help="dev, train or search.")] = "train",
    sets: Sets = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Rent a GPU.")] = False,
    name: Annotated[str | None, typer.Option("--name", "-n", help="Of the run there; by default the spec's.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print environment and command.")] = False,
) -> int:
    """Run a spec on a rented machine, through dstack and the files in .dstack/."""
    from slm_lab.cli import remote

    job = remote.remote_run(spec_file, spec_name, mode, sets or (), gpu, name)
    print(job.line)  # noqa: T201 - the result of the command
    return DONE if dry_run else remote.submit(job)


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def main(argv: list[str] | None = None) -> int:
    """Run `slm-lab`; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return _guarded(lambda: app(arrange(words), prog_name="slm-lab", standalone_mode=False))


def retro_main(argv: list[str] | None = None) -> int:
    """Run `slm-retro`; returns the exit code."""
    program = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    program.command()(_retro)
    return _guarded(lambda: program(argv, prog_name="slm-retro", standalone_mode=False))


def _retro(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, e.g. data/RUN.")],
    log_level: LogLevel = "INFO",
) -> int:
    """Make every metric and graph of a run again, from its files."""
    from slm_lab.experiment.retro import retro
    from slm_lab.lib.logger import setup_logger

    setup_logger(log_level)
    retro(run_folder)
    return DONE


def arrange(words: list[str]) -> list[str]:
    """Put the sub-command in front: the first word if it is one, else `run`. Options may stand before either."""
    commands = cast("TyperGroup", typer.main.get_command(app)).commands
    options = [param for param in commands["run"].params if not getattr(param, "is_flag", True)]
    takes_value = {name for option in options for name in option.opts}
    rest = iter(enumerate(words))
    for place, word in rest:
        if word in takes_value:
            next(rest, None)
        elif not word.startswith("-"):
            return [word, *words[:place], *words[place + 1 :]] if word in commands else ["run", *words]
    return ["--help"] if "--help" in words else ["run", *words]


def _guarded(program: Callable[[], int | None]) -> int:
    """Turn an error of the user, or the end of a run, into a message and an exit code; others stay as they are."""
    try:
        return program() or DONE
    except typer.TyperException as error:
        return complain(f"{error.format_message()} (see --help)", BAD_INPUT)
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        return complain(str(error), code)


def _exit_code(error: Exception) -> int | None:
    from slm_lab.spec.errors import SpecError

    if isinstance(error, SpecError):
        return BAD_INPUT
    from slm_lab.experiment.trial import Interrupted, TrialError  # loaded long since, if it is one of them

    if isinstance(error, Interrupted):
        return STOPPED
    return FAILED if isinstance(error, TrialError) else None


def complain(message: str, code: int) -> int:
    """Print a message on stderr and return `code`."""
    print(f"slm-lab: {message}", file=sys.stderr)  # noqa: T201
    return code
