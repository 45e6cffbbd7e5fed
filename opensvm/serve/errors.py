"""What stops a start."""

from __future__ import annotations


class StartError(Exception):
    """The service can't start; the message is one sentence that says what to do."""


class ChildFailed(StartError):
    """A process ended right after its first start. `output` is the end of what it wrote to stderr."""

    def __init__(self, role: str, exit_code: int, output: list[str]) -> None:
        self.role = role
        self.exit_code = exit_code
        self.output = output
        ending = f"was ended by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
        super().__init__(f"The {role} process {ending} right after its start, so the service stops.")
