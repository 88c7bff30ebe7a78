"""The MinkowskiEngine back end: its own kernel maps and products, for the sites and windows of these layers."""

from __future__ import annotations

import collections
import collections.abc
import importlib.util
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sparsegen.errors import BackendError
from sparsegen.sparse.backends import BACKENDS, OPTIONAL, Capabilities
from sparsegen.sparse.kernel_map import KernelMap, Placement

__all__ = ["MinkowskiBackend", "minkowski_engine", "tap_order"]


@cache
def minkowski_engine() -> Any:
    """The module ``MinkowskiEngine``, imported when it is first needed.

    Raises:
        BackendError: It is not installed.
    """
    if importlib.util.find_spec("MinkowskiEngine") is None:
        raise BackendError(f"the minkowski back end is not installed: {OPTIONAL['minkowski']}")
    # The published source imports a name from where Python keeps it no longer.
    collections.Sequence = collections.abc.Sequence  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("MinkowskiEngine")
    finally:
        del collections.Sequence  # type: ignore[attr-defined]


def tap_order(kernel: tuple[int, ...]) -> Tensor:
    """Our tap of each of MinkowskiEngine's ``(K,)``: there the first axis runs fastest, here the last."""
    taps = torch.arange(torch.Size(kernel).numel()).view(kernel)
    return taps.permute(*reversed(range(len(kernel)))).flatten()


class _Engine:
    """What MinkowskiEngine needs to run one map: a coordinate manager that knows its sites and windows.

    Its kernels are centred where a size is odd and start at the window where it is even. Windows are handed over in
    fine sites, moved so that its taps lie where ours do: it then finds our pairs whatever the stride and padding are.
    """

    def __init__(self, placement: Placement) -> None:
        minkowski = minkowski_engine()
        window, dim = placement.window, len(placement.window.kernel)
        self.kernel = importlib.import_module("MinkowskiEngineBackend._C")
        # Without a number of threads it would set the process's own to that of the cores.
        self.manager = minkowski.CoordinateManager(
            D=dim, num_threads=torch.get_num_threads(), coordinate_map_type=minkowski.CoordinateMapType.CPU
        )
        start = [
            (k // 2 * d if k % 2 else 0) - p
            for k, p, d in zip(window.kernel, window.padding, window.dilation, strict=True)
        ]
        scale = torch.tensor([1, *window.stride])
        coarse = placement.coarse * scale + torch.tensor([0, *start])
        self.fine = self._insert(placement.fine)
        same = coarse.shape == placement.fine.shape and torch.equal(coarse, placement.fine)
        self.coarse = self.fine if same else self._insert(coarse)
        self.order = tap_order(window.kernel)
        self.rank = self.order.argsort()
        self.geometry = (list(window.kernel), list(window.stride), list(window.dilation))

    @classmethod
    def of(cls, kernel_map: KernelMap) -> _Engine:
        """Of one map, shared with its adjoint."""
        placement = kernel_map.placement
        assert placement is not None, "a map for MinkowskiEngine says where its rows lie"
        if "minkowski" not in placement.cache:
            placement.cache["minkowski"] = cls(placement)
        engine: _Engine = placement.cache["minkowski"]
        return engine

    def _insert(self, coords: Tensor) -> Any:
        if int(coords.abs().max()) >= 2**31:
            raise BackendError("the minkowski back end counts sites in 32 bits; native and torch in 62")
        key, _ = self.manager.insert_and_map(coords.int().contiguous())
        return key

    def call(self, what: str, upward: bool, *tensors: Tensor, forward: bool = False) -> Any:
        """One of its functions on features and weights, between our inputs and outputs."""
        name = f"Convolution{'Transpose' if upward else ''}{what}CPU"
        keys = (self.coarse, self.fine) if upward else (self.fine, self.coarse)
        region, no_offsets = self.kernel.RegionType.HYPER_CUBE, torch.IntTensor()
        new_sites = (False,) if forward else ()
        mode = self.kernel.ConvolutionMode.DEFAULT
        function = getattr(self.kernel, name)
        return function(*tensors, *self.geometry, region, no_offsets, *new_sites, mode, *keys, self.manager._manager)


class MinkowskiBackend:
    """MinkowskiEngine's CPU kernels (published release 0.5.4); its search for pairs runs beside ours.

    References:
        4D Spatio-Temporal ConvNets: Minkowski Convolutional Neural Networks (Choy, Gwak, Savarese, 2019),
        https://arxiv.org/abs/1904.08755
    """

    name = "minkowski"
    # With several threads its pairs come in no fixed order; its gradients are cut off the graph.
    capabilities = Capabilities(
        dimensions=(1, 2, 3, 4),
        dtypes=(torch.float32, torch.float64),
        devices=("cpu",),
        double_backward=False,
        deterministic=(),
        periodic=False,
    )

    def convolve(self, x: Tensor, weight: Tensor, kernel_map: KernelMap, bias: Tensor | None = None) -> Tensor:
        """See :class:`~sparsegen.sparse.backends.Backend`."""
        # It returns a dangling map where there are no sites.
        if not len(kernel_map.inputs):
            out = x.new_zeros(kernel_map.sizes[1], weight.shape[2])
        else:
            engine = _Engine.of(kernel_map)
            out = engine.call(
                "Forward", kernel_map.upward, x.contiguous(), weight[engine.order].contiguous(), forward=True
            )
        return out if bias is None else out.add_(bias)

    def correlate(self, x: Tensor, y: Tensor, kernel_map: KernelMap) -> Tensor:
        """See :class:`~sparsegen.sparse.backends.Backend`."""
        weight = x.new_zeros(len(kernel_map.starts) - 1, x.shape[1], y.shape[1])
        if not len(kernel_map.inputs):
            return weight
        engine = _Engine.of(kernel_map)
        # It computes the input's gradient too, which these weights make zero.
        _, out = engine.call("Backward", kernel_map.upward, x.contiguous(), y.contiguous(), weight)
        return out[engine.rank]


if importlib.util.find_spec("MinkowskiEngine") is not None:
    BACKENDS.register("minkowski")(MinkowskiBackend())
