"""Sparse convolution in one to four dimensions, differentiable to any order.

Every layer visits active sites only: cost grows with what is there, not with the volume.

Example:
    >>> import torch
    >>> x = SparseTensor(torch.ones(3, 1), torch.tensor([[0, 0, 0], [0, 3, 3], [1, 2, 1]]), (4, 4), batch_size=2)
    >>> y = SparseConv(2, 1, 8, kernel_size=2, stride=2)(SubmanifoldConv(2, 1, 1, kernel_size=3)(x))
    >>> y
    SparseTensor(3 sites, 8 channels, batch 2 of (2, 2), stride 2)
    >>> GenerativeConvTranspose(2, 8, 1, kernel_size=2, stride=2)(y)
    SparseTensor(12 sites, 1 channels, batch 2 of (4, 4), stride 1)
"""

from sparsegen.sparse.backends import Capabilities, backends, use_backend
from sparsegen.sparse.conv import (
    GenerativeConvTranspose,
    SparseConv,
    SparseConvTranspose,
    SparsityInvariantConv,
    SubmanifoldConv,
)
from sparsegen.sparse.functional import concat, prune, union_add
from sparsegen.sparse.interchange import from_minkowski, to_minkowski
from sparsegen.sparse.minkowski import MinkowskiBackend
from sparsegen.sparse.native import NativeBackend
from sparsegen.sparse.norm import BatchNorm, InstanceNorm, LayerNorm
from sparsegen.sparse.pool import GlobalPool, MaxPool, MeanPool, SumPool, Switches, Unpool
from sparsegen.sparse.spectral import operator_norm, spectral_norm, spectral_normalise
from sparsegen.sparse.tensor import Sites, SparseTensor

__all__ = [
    "BatchNorm",
    "Capabilities",
    "GenerativeConvTranspose",
    "GlobalPool",
    "InstanceNorm",
    "LayerNorm",
    "MaxPool",
    "MeanPool",
    "MinkowskiBackend",
    "NativeBackend",
    "Sites",
    "SparseConv",
    "SparseConvTranspose",
    "SparseTensor",
    "SparsityInvariantConv",
    "SubmanifoldConv",
    "SumPool",
    "Switches",
    "Unpool",
    "backends",
    "concat",
    "from_minkowski",
    "operator_norm",
    "prune",
    "spectral_norm",
    "spectral_normalise",
    "to_minkowski",
    "union_add",
    "use_backend",
]
