"""One convolution as every engine runs it: own back ends, dense torch, and peers where they are installed."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from cases import Case
from torch import Tensor, nn

from sparsegen.sparse import SparseTensor, SubmanifoldConv, backends, to_minkowski, use_backend
from sparsegen.sparse.maps import submanifold
from sparsegen.sparse.minkowski import minkowski_engine, tap_order


@dataclass
class Contender:
    """Functions of no arguments for each measure, and what they return for the comparison."""

    name: str
    run: dict[str, Callable[[], Any]] = field(default_factory=dict)
    check: Callable[[], tuple[Tensor, ...]] | None = None
    # Whether its results are right with more than one thread.
    threads: bool = True


class Problem:
    """One case's numbers, on every contender's side."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        self.case, self.dim = case, len(case.shape)
        n = len(case.coords)
        self.features = torch.randn(n, case.cin, requires_grad=True)
        self.weight = (torch.randn(3**self.dim, case.cin, case.cout) / 30).requires_grad_()
        self.gradient = torch.randn(n, case.cout)
        self.at = tuple(case.coords.unbind(1))

    def tensor(self) -> SparseTensor:
        """The features on fresh sites."""
        case = self.case
        return SparseTensor(self.features, case.coords, case.shape, case.batch, periodic=case.periodic)

    def own(self, name: str) -> Contender:
        case = self.case
        layer = SubmanifoldConv(self.dim, case.cin, case.cout, 3, bias=False)
        layer.weight = nn.Parameter(self.weight.detach())
        fixed, inputs = self.tensor(), [self.features, layer.weight]

        def within(function: Callable[[], Any]) -> Callable[[], Any]:
            def run() -> Any:
                with use_backend(name):
                    return function()

            return run

        def backward(x: SparseTensor) -> tuple[Tensor, ...]:
            y = layer(x).features
            return y, *torch.autograd.grad(y, inputs, self.gradient)

        with use_backend(name):
            # Graphs that are differentiated again and again.
            leaf = self.gradient.clone().requires_grad_()
            output = layer(fixed).features
            slopes = torch.autograd.grad(output, inputs, leaf, create_graph=True)
            bends = [torch.randn_like(slope) for slope in slopes]

        three = (3,) * self.dim
        run = {
            "map": lambda: submanifold(self.tensor().sites, three, (1,) * self.dim),
            "forward": lambda: layer(fixed),
            "backward": lambda: torch.autograd.grad(output, inputs, self.gradient, retain_graph=True),
            "forward+backward": lambda: backward(fixed),
            "double backward": lambda: torch.autograd.grad(slopes, [leaf, *inputs], bends, retain_graph=True),
            "layer": lambda: backward(self.tensor()),
        }
        return Contender(name, {k: within(v) for k, v in run.items()}, within(lambda: backward(fixed)))

    def bfloat16(self) -> Contender | None:
        """The native forward with bfloat16 features and weights; its check is the output alone."""
        if not any(torch.bfloat16 in able.dtypes for able in backends().values()):
            return None
        layer = SubmanifoldConv(self.dim, self.case.cin, self.case.cout, 3, bias=False)
        layer.weight = nn.Parameter(self.weight.detach())
        fixed, layer = self.tensor(), layer.bfloat16()
        fixed = fixed.replace(fixed.features.detach().bfloat16())
        return Contender("bfloat16", {"forward": lambda: layer(fixed)}, lambda: (layer(fixed).features,))

    def dense(self, channels_last: bool) -> Contender:
        case = self.case
        layout = torch.channels_last if self.dim == 2 else torch.channels_last_3d
        layout = layout if channels_last else torch.contiguous_format
        operation = nn.functional.conv2d if self.dim == 2 else nn.functional.conv3d

        def convolution(image: Tensor, kernel: Tensor) -> Tensor:
            padding = [0 if axis in case.periodic else 1 for axis in range(self.dim)]
            for axis in case.periodic:
                n = image.shape[2 + axis]
                image = torch.cat([image.narrow(2 + axis, n - 1, 1), image, image.narrow(2 + axis, 0, 1)], 2 + axis)
            return operation(image, kernel, padding=padding)

        with torch.no_grad():
            kernel = self.weight.permute(2, 1, 0).reshape(case.cout, case.cin, *(3,) * self.dim)
            kernel = kernel.contiguous(memory_format=layout).requires_grad_()
            image = self.tensor().to_dense()
            image = image.contiguous(memory_format=layout).requires_grad_()
            gradient = torch.zeros(case.batch, case.cout, *case.shape)
            gradient.movedim(1, -1)[self.at] = self.gradient
            gradient = gradient.contiguous(memory_format=layout)

        def backward() -> tuple[Tensor, ...]:
            y = convolution(image, kernel)
            return y, *torch.autograd.grad(y, [image, kernel], gradient)

        def check() -> tuple[Tensor, ...]:
            y, slope, bend = backward()
            flat = bend.flatten(2).permute(2, 1, 0)
            return y.movedim(1, -1)[self.at], slope.movedim(1, -1)[self.at], flat

        run = {"forward": lambda: convolution(image, kernel), "forward+backward": backward}
        run["layer"] = backward
        return Contender("dense channels last" if channels_last else "dense", run, check)

    def spconv(self) -> Contender | None:
        # It knows no periodic axes.
        if self.case.periodic or not installed("spconv.pytorch"):
            return None
        import spconv.pytorch as spconv

        # Its backward asks for a CUDA stream even on the CPU.
        importlib.import_module("spconv.pytorch.ops").get_current_stream = lambda: 0
        case = self.case
        kind = spconv.SubMConv2d if self.dim == 2 else spconv.SubMConv3d
        layer = kind(case.cin, case.cout, 3, bias=False, indice_key="a", algo=spconv.ConvAlgo.Native)
        shape = layer.weight.shape
        with torch.no_grad():
            # (out, *kernel, in)
            layer.weight.copy_(self.weight.permute(2, 0, 1).reshape(shape))
        indices = case.coords.int().contiguous()

        def fresh() -> Any:
            return spconv.SparseConvTensor(self.features, indices, list(case.shape), case.batch)

        fixed = fresh()
        layer(fixed)

        def backward(x: Any) -> tuple[Tensor, ...]:
            y = layer(x).features
            return y, *torch.autograd.grad(y, [self.features, layer.weight], self.gradient)

        def check() -> tuple[Tensor, ...]:
            y, slope, bend = backward(fresh())
            return y, slope, bend.flatten(1, -2).permute(1, 2, 0)

        ops = importlib.import_module("spconv.pytorch.ops")
        ones, three = [1] * self.dim, [3] * self.dim

        def pairs() -> Any:
            return ops.get_indice_pairs(
                indices, case.batch, list(case.shape), spconv.ConvAlgo.Native, three, ones, ones, ones, ones, subm=True
            )

        run = {
            "map": pairs,
            "forward": lambda: layer(fixed),
            "forward+backward": lambda: backward(fixed),
            "layer": lambda: backward(fresh()),
        }
        return Contender("spconv", run, check, threads=False)

    def minkowski(self) -> Contender | None:
        # It knows no periodic axes.
        if self.case.periodic or "minkowski" not in backends():
            return None
        minkowski, case = minkowski_engine(), self.case
        own = SubmanifoldConv(self.dim, case.cin, case.cout, 3, bias=False)
        own.weight = nn.Parameter(self.weight.detach())
        layer = to_minkowski(own)
        coords, place = case.coords.int().contiguous(), tap_order((3,) * self.dim).argsort()

        def manager() -> Any:
            # By itself it takes every core, and sets the process to it.
            kind = minkowski.CoordinateMapType.CPU
            return minkowski.CoordinateManager(
                D=self.dim, num_threads=torch.get_num_threads(), coordinate_map_type=kind
            )

        def fresh() -> Any:
            return minkowski.SparseTensor(self.features, coords, coordinate_manager=manager())

        known = fresh()
        fixed = minkowski.SparseTensor(
            self.features, coordinate_map_key=known.coordinate_map_key, coordinate_manager=known.coordinate_manager
        )

        def backward(x: Any) -> tuple[Tensor, ...]:
            y = layer(x).F
            return y, *torch.autograd.grad(y, [self.features, layer.kernel], self.gradient)

        def check() -> tuple[Tensor, ...]:
            y, slope, bend = backward(fixed)
            return y, slope, bend[place]

        def pairs() -> Any:
            made = manager()
            key, _ = made.insert_and_map(coords)
            return made.kernel_map(key, key, 1, 3)

        run = {
            "map": pairs,
            "forward": lambda: layer(fixed),
            "forward+backward": lambda: backward(fixed),
            "layer": lambda: backward(fresh()),
        }
        return Contender("minkowski", run, check)


# Engines that are measured where they are installed, by name: the method of Problem that sets one up.
PEERS: dict[str, Callable[[Problem], Contender | None]] = {
    "spconv": Problem.spconv,
    "minkowski": Problem.minkowski,
}


def installed(module: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    except ImportError:
        return False
    return True
