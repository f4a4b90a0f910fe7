"""How a run is carried out; what is run stands in the spec."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RunOptions:
    """Options of one run, each a flag of the command line.

    Attributes:
        render: draw the first environment while training.
        torch_compile: "true" compiles the gradient steps, "false" leaves them to torch as they are; "auto" has numpy do
            those of small nets, and compiles others in long runs.
        cuda_offset: the first GPU to use, where there are several.
        profile: "false", "cpu", "gpu", or "true" for both: write a trace of the first updates of session 0.
        log_level: DEBUG, INFO, WARNING or ERROR.
    """

    render: bool = False
    torch_compile: str = "auto"
    cuda_offset: int = 0
    profile: str = "false"
    log_level: str = "INFO"
