"""Studies: grids of runs, executed once each, judged on one lattice, and the report over them.

Names load on first use, so that the command line answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsegen.study.evaluation import Outcome
    from sparsegen.study.executor import Finished, execute
    from sparsegen.study.planner import EvaluationConfig, PlannedRun, Study, read_study
    from sparsegen.study.report import write_report
    from sparsegen.study.runs import build_model, draw, open_source, train
    from sparsegen.study.statistics import Group, Summary, groups, long_form, summarise

_HOMES = {
    "evaluation": ("Outcome",),
    "executor": ("Finished", "execute"),
    "planner": ("EvaluationConfig", "PlannedRun", "Study", "read_study"),
    "report": ("write_report",),
    "runs": ("build_model", "draw", "open_source", "train"),
    "statistics": ("Group", "Summary", "groups", "long_form", "summarise"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "EvaluationConfig",
    "Finished",
    "Group",
    "Outcome",
    "PlannedRun",
    "Study",
    "Summary",
    "build_model",
    "draw",
    "execute",
    "groups",
    "long_form",
    "open_source",
    "read_study",
    "summarise",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'sparsegen.study' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"sparsegen.study.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
