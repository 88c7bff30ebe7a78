"""The ground of everything: native kernels on the CPU, with torch and scipy where there is no extension or no CPU.

Every function takes ``engine="auto"``; all engines give the same results, to the last bit unless its docstring says
otherwise.
"""

from sparsegen.kernels.active import active_cells
from sparsegen.kernels.assignment import Assignment, assign, assign_costs
from sparsegen.kernels.flow import pairwise_emd
from sparsegen.kernels.mirrors import GROUPS, MirrorSearch
from sparsegen.kernels.native import instruction_set
from sparsegen.kernels.nearest import Nearest, nearest, nearest_both
from sparsegen.kernels.pairwise import pairwise_chamfer
from sparsegen.kernels.potential import Best, CellSearch
from sparsegen.kernels.spots import deflate_cells, sum_spots

__all__ = [
    "GROUPS",
    "Assignment",
    "Best",
    "CellSearch",
    "MirrorSearch",
    "Nearest",
    "active_cells",
    "assign",
    "assign_costs",
    "deflate_cells",
    "instruction_set",
    "nearest",
    "nearest_both",
    "pairwise_chamfer",
    "pairwise_emd",
    "sum_spots",
]
