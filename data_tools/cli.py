"""The command line of the data tools: one verb a module."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from data_tools import jets
from sparsegen.errors import SparsegenError

__all__ = ["VERBS", "main"]

VERBS = {"jets": jets}


def main(argv: Sequence[str] | None = None, program: str = "python -m data_tools") -> int:
    """Run a verb; returns the exit code: 0, 1 where a check found faults, 2 on bad input."""
    parser = argparse.ArgumentParser(prog=program, description="Make, convert, check and look at data sets.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, module in VERBS.items():
        text = (module.__doc__ or "").split("\n")[0].split(": ", 1)[-1]
        module.add_arguments(verbs.add_parser(name, help=text, description=text))
    options = parser.parse_args(argv)
    try:
        return int(VERBS[options.verb].run(options))
    except SparsegenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
