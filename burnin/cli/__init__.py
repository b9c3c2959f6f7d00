"""The command line: parse, call, exit code."""


def main() -> None:
    """Entry point of the `burnin` command."""
