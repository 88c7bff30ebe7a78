"""The command line of the data tools: one verb a module."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from data_tools.check import CHECK
from data_tools.convert import CONVERT, IMAGE, VOXELIZE
from data_tools.digits import DIGITS
from data_tools.inspect import INSPECT
from data_tools.jets import JETS
from data_tools.repair import REPAIR
from data_tools.select import MERGE, SPLIT, SUBSET
from data_tools.shapes import SHAPES
from data_tools.showers import SHOWERS
from data_tools.toys import TOYS
from data_tools.verb import Verb
from sparsegen.errors import SparsegenError, unknown_name

__all__ = ["VERBS", "main"]

VERBS: dict[str, Verb] = {
    "jets": JETS,
    "showers": SHOWERS,
    "shapes": SHAPES,
    "digits": DIGITS,
    "toys": TOYS,
    "inspect": INSPECT,
    "check": CHECK,
    "repair": REPAIR,
    "convert": CONVERT,
    "split": SPLIT,
    "merge": MERGE,
    "subset": SUBSET,
    "voxelize": VOXELIZE,
    "image": IMAGE,
}


_EPILOG = (
    "A file that is made appears whole or not at all, and replaces another only with --overwrite. Long work can be "
    "stopped at any moment: the same command goes on from what is finished, in OUTPUT.chunks, to the same result."
)


_NOT_OURS = "choose another folder, or see who may write there"
_REMEDIES = {
    errno.EACCES: _NOT_OURS,
    errno.EPERM: _NOT_OURS,
    errno.EROFS: _NOT_OURS,
    errno.EEXIST: "choose another name",
    errno.ENOTDIR: "choose another name",
    errno.EISDIR: "choose another name",
    errno.ENAMETOOLONG: "choose another name",
    errno.ENOSPC: "make room; what is finished is kept, the same command goes on from there",
    errno.EDQUOT: "make room; what is finished is kept, the same command goes on from there",
}


def main(argv: Sequence[str] | None = None, program: str = "python -m data_tools") -> int:
    """Run a verb; returns the exit code: 0, 1 where a check found faults, 2 on bad input."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and not argv[0].startswith("-") and argv[0] not in VERBS:
        print(f"error: {unknown_name('verb', argv[0], VERBS)}", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(prog=program, description="Make, convert, check and look at data sets.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        verb.add_arguments(verbs.add_parser(name, help=verb.summary, description=verb.summary, epilog=_EPILOG))
    options = parser.parse_args(argv)
    try:
        return VERBS[options.verb].run(options)
    except SparsegenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        where = f"{error.filename}: {error.strerror}" if error.filename else " ".join(str(error).split())
        print(f"error: {where}; {remedy}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; what is finished is kept, the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output, such as head, went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
