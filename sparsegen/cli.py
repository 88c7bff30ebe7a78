"""The command line: parses, calls the library, prints.

What a command does is in :mod:`sparsegen.study.commands` (in :mod:`data_tools` for ``data``), which is imported when
one is run, so that ``sparsegen --help`` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import jsonargparse
import yaml

from sparsegen import __version__
from sparsegen.errors import ConfigError, SparsegenError, unknown_name

__all__ = ["KINDS", "main"]

KINDS = ("models", "networks", "priors", "data", "metrics")

_ABOUT = """Generative models of sparse events: dense, sparse and point networks compared on equal terms.

  sparsegen train experiments/jets.yaml --model vae --network sparse --seed 1 -o runs/a     again = resume
  sparsegen sample runs/a -n 10000 -o samples.h5
  sparsegen refit runs/a --model.prior flow -o runs/b                                       another law, same training
  sparsegen evaluate samples.h5 --reference pythia-jets:test
  sparsegen compare experiments/demo.yaml -o report                                         report/index.html"""

_TRAIN = """Train one run into a folder; the same command again resumes it, and another config there is refused.

Any setting of the config can be given as --SECTION.KEY VALUE (--model.beta 0.1, --network.parameters 50000,
--data.events 2000, --training.lr 3e-4); the settings of training also without their section (--epochs 5)."""

_REFIT = """Fit what a run fits after its training once more, under other options, into a new folder.

The new run equals, bit for bit, one that was trained with these options from the start:

  sparsegen refit runs/a --model.prior mixture -o runs/b
  sparsegen refit runs/a --model.name aeot --model.theta 0.4 -o runs/c"""

_COMPARE = """Run a grid of data x model x network x seed, resume what was stopped, and write the report:
index.html, results.csv and results.json. The same command again runs only what is missing.
Settings as in `sparsegen train` apply to every run (--training.epochs 1)."""

_EXIT = "exit codes: 0 done, 2 bad input, 3 diverged, 75 interrupted (the same command goes on)"


class _Parser(jsonargparse.ArgumentParser):
    """A parser whose errors are one line and an exit code, as all of sparsegen's are."""

    def __init__(self, **options: Any) -> None:
        super().__init__(exit_on_error=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)


def _train(parser: _Parser) -> None:
    parser.add_argument("config", help="YAML file of the run: data, model, network, training")
    parser.add_argument("--model", metavar="NAME", help="another model than the config's, with its own defaults")
    parser.add_argument("--network", metavar="NAME", help="another family of networks; sees the data in its own view")
    parser.add_argument("--seed", type=int, help="same as --training.seed")
    parser.add_argument("-o", "--output", metavar="RUN", required=True, help="folder of the run")


def _sample(parser: _Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a trained run")
    parser.add_argument(
        "-n", "--events", type=int, help="how many events; 10000, or as many as there are in SOURCE, by default"
    )
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="HDF5 file to write")
    parser.add_argument(
        "--condition",
        metavar="NAME=VALUE",
        nargs="+",
        help="what all events are to have; by default conditions are drawn from the training events",
    )
    parser.add_argument(
        "--like", metavar="SOURCE", help="events whose conditions are taken, in turn: pythia-jets:test, a file"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all randomness")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def _refit(parser: _Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a trained run")
    parser.add_argument("-o", "--output", metavar="RUN", required=True, help="folder of the new run")


def _evaluate(parser: _Parser) -> None:
    parser.add_argument(
        "generated", metavar="FILE|RUN", help="generated events, or the folder of a run to draw them from"
    )
    parser.add_argument("--reference", metavar="SOURCE", required=True, help="real events, such as pythia-jets:test")
    parser.add_argument("--metrics", default="fast", metavar="NAMES", help="fast, full, or names with commas between")
    parser.add_argument(
        "--protocol", default="whole", metavar="NAME", help="whole, mpgan2021, jetnet0.2 or calochallenge"
    )
    parser.add_argument(
        "--invalid",
        default="leave_out",
        metavar="HOW",
        help="leave_out (and count) events that cannot be evaluated, or raise",
    )
    parser.add_argument(
        "--data-set", metavar="NAME", help="the reference is this published data (jetnet-30-g): show published numbers"
    )
    parser.add_argument(
        "--jetnet-stats", metavar="PATH", help="also fpnd: folder .../fpnd_resources/jetnet/30_particles of jetnet"
    )
    parser.add_argument("--jet-type", default="g", metavar="TYPE", help="g, q or t, for --jetnet-stats")
    parser.add_argument("--train", metavar="SOURCE", help="training events, for memorisation; a run's own by default")
    parser.add_argument(
        "--view", metavar="VIEW", help="points or image, for both sides; that of the generated events by default"
    )
    parser.add_argument(
        "-n", "--events", type=int, help="events to draw from a run; as many as the reference has by default"
    )
    parser.add_argument("--seed", type=int, default=0, help="of sampling and of the metrics")
    parser.add_argument("-o", "--output", metavar="JSON", help="also write the results as JSON")
    parser.add_argument("--plots", metavar="PNG", help="also draw generated over real events, with their ratio")
    parser.add_argument("--cache", metavar="DIR", help="keep what is read off the reference here, by the file's hash")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def _compare(parser: _Parser) -> None:
    parser.add_argument("config", help="YAML file of the study")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder of the report and its runs")
    parser.add_argument("--processes", type=int, help="runs at the same time; one a core by default")
    parser.add_argument("--threads", type=int, default=1, help="threads of each")


def _list(parser: _Parser) -> None:
    parser.add_argument("kind", choices=KINDS, metavar="KIND", help=" | ".join(KINDS))


# name -> (module and function that does it, arguments, one line, description, whether it takes settings)
COMMANDS: dict[str, tuple[str, Any, str, str, bool]] = {
    "list": (
        "show_list",
        _list,
        "what there is: models, networks, priors, data, metrics",
        "List what can be named.",
        False,
    ),
    "train": ("train", _train, "train one run, or resume it", _TRAIN, True),
    "sample": ("sample", _sample, "draw events from a trained run into a file", "Draw events into a file.", False),
    "refit": ("refit", _refit, "fit the law of a trained run's codes again, without training", _REFIT, True),
    "evaluate": (
        "evaluate",
        _evaluate,
        "metrics of generated events, with error, floor and protocol",
        "Hold generated events against real ones.",
        False,
    ),
    "compare": ("compare", _compare, "run a grid of models and networks, write the report", _COMPARE, True),
}
_DATA = "make, convert, check and look at data sets (python -m data_tools)"


def build_parser() -> jsonargparse.ArgumentParser:
    """The parser of every command but ``data``, which data_tools parses itself."""
    parser = _Parser(prog="sparsegen", description=_ABOUT, epilog=_EXIT)
    parser.add_argument("--version", action="version", version=f"sparsegen {__version__}")
    commands = parser.add_subcommands(dest="command", metavar="COMMAND", title="commands", description=None)
    for name, (_, arguments, summary, description, _) in COMMANDS.items():
        command = _Parser(description=description)
        arguments(command)
        commands.add_subcommand(name, command, help=summary)
    commands.add_subcommand("data", _Parser(description=_DATA), help=_DATA)
    return parser


def split_settings(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Takes ``--section.key value`` and ``--section.key=value`` out of the arguments of a command.

    Example:
        >>> split_settings(["a.yaml", "--training.lr", "1e-3", "-o", "runs/a"])
        (['a.yaml', '-o', 'runs/a'], {'training.lr': '1e-3'})
    """
    rest: list[str] = []
    settings: dict[str, Any] = {}
    items = iter(arguments)
    for item in items:
        name, equals, text = item.partition("=")
        if not (name.startswith("--") and "." in name):
            rest.append(item)
            continue
        if not equals:
            value = next(items, None)
            if value is None or value.startswith("--"):
                raise ConfigError(f"{name}: expected a value after it")
            text = value
        try:
            settings[name[2:]] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"{name}: {text!r} is not a value; quote it as YAML would") from None
    return rest, settings


def _run(arguments: list[str]) -> int:
    known = (*COMMANDS, "data")
    if arguments and not arguments[0].startswith("-") and arguments[0] not in known:
        raise ConfigError(unknown_name("command", arguments[0], known))
    if arguments and arguments[0] == "data":
        tools = importlib.import_module("data_tools.cli")
        return int(tools.main(arguments[1:], program="sparsegen data"))
    if not arguments:
        arguments = ["--help"]
    settings: dict[str, Any] = {}
    if arguments[0] in COMMANDS and COMMANDS[arguments[0]][4]:
        rest, settings = split_settings(_with_sections(arguments[1:]))
        arguments = [arguments[0], *rest]
    try:
        options = build_parser().parse_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(f"{' '.join(str(error).split())}; see sparsegen {arguments[0]} --help") from None
    command = COMMANDS[options.command]
    function = getattr(importlib.import_module("sparsegen.study.commands"), command[0])
    values = vars(options[options.command])
    return int(function(**values, **({"settings": settings} if command[4] else {})))


def _with_sections(arguments: Sequence[str]) -> list[str]:
    """``--epochs`` as ``--training.epochs``, for every setting of training that no command has as its own."""
    config = importlib.import_module("sparsegen.training.config")
    names = {f"--{name}" for name in config.TrainingConfig.__dataclass_fields__} - {"--seed"}
    return [f"--training.{a[2:]}" if a.partition("=")[0] in names else a for a in arguments]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    shown = warnings.formatwarning
    warnings.formatwarning = _one_line
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except SparsegenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader (`head`, `less`) has gone; nothing is left to say, not even at interpreter shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    finally:
        warnings.formatwarning = shown


def _one_line(message: Warning | str, *place: object, **more: object) -> str:
    """A warning as errors are told, without the place in the code."""
    return f"warning: {message}\n"


if __name__ == "__main__":
    sys.exit(main())
