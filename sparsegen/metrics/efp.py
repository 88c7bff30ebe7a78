r"""Energy-flow polynomials of any multigraph, by contracting tensors.

.. math:: \mathrm{EFP}_G = \sum_{i_1 \dots i_N} z_{i_1} \cdots z_{i_N} \prod_{(k, l) \in G} \theta_{i_k i_l}^{\beta}

Vertices are summed out one after another, those with fewest neighbours first: one neighbour costs a matrix-vector
product, two a matrix-matrix product. Every intermediate is kept by what it is, not by the graph it came from, so that
the 36 graphs of four edges or fewer need a single matrix-matrix product between them.

References:
    Energy flow polynomials: A complete linear basis for jet substructure, Komiske, Metodiev, Thaler, 2018,
    https://arxiv.org/abs/1712.07124
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparsegen.errors import ConfigError
from sparsegen.events import Events
from sparsegen.metrics.efp_graphs import EFPS_D4, EFPS_N4_D4_PRIME, Multigraph
from sparsegen.metrics.inputs import JetView, jet_view

__all__ = ["EFPS_D4", "EFPS_N4_D4_PRIME", "Multigraph", "efps"]

ELEMENTS = 2**19
"""Entries of one distance tensor, at most: sets how many jets are contracted together."""


def efps(
    events: Events,
    graphs: Sequence[Multigraph] = EFPS_D4,
    *,
    beta: float = 1.0,
    normed: bool = False,
    view: JetView | None = None,
) -> Tensor:
    r"""Energy-flow polynomials of every jet, with the hadronic measure.

    The momentum is :math:`z = p_T`, the distance :math:`\theta^2 = \Delta\eta^2 + \Delta\phi^2`.

    Args:
        events: The jets.
        graphs: Edge lists of multigraphs; the empty one stands for a single vertex.
        beta: Power of the angular distance.
        normed: Whether the momenta of a jet are divided by their sum.
        view: Which axes and column to read; by name otherwise.

    Returns:
        ``(B, G)`` float64; zero for an event without hits.

    Raises:
        ConfigError: An edge joins a vertex to itself.

    Example:
        >>> pair = Events(
        ...     torch.tensor([[0.0, 0.0], [0.3, 0.4]]),
        ...     torch.tensor([[2.0], [1.0]]),
        ...     torch.tensor([0, 2]),
        ...     axes=("eta", "phi"),
        ...     columns=("pt",),
        ... )
        >>> efps(pair, [(), ((0, 1),), ((0, 1), (0, 1))])
        tensor([[3.0000, 2.0000, 1.0000]], dtype=torch.float64)
    """
    for graph in graphs:
        if any(a == b for a, b in graph):
            raise ConfigError(f"efps: graph {graph} joins a vertex to itself, which makes every polynomial zero")
    eta, phi, pt = (view or jet_view(events)).read(events)
    out = pt.new_zeros(len(events), len(graphs))
    # Jets of similar length are padded together: the cost grows with the square of the longest.
    order = events.counts.argsort(stable=True)
    lengths = events.counts[order]
    start = int((lengths == 0).sum())
    while start < len(order):
        stop = _chunk_end(lengths, start)
        chosen = order[start:stop]
        length = int(lengths[stop - 1])
        slot = torch.arange(length)
        real = slot < events.counts[chosen][:, None]
        rows = torch.where(real, events.offsets[:-1][chosen][:, None] + slot, 0)
        z = torch.where(real, pt[rows], 0.0)
        if normed:
            z = z / z.sum(1, keepdim=True)
        x, y = eta[rows], phi[rows]
        difference = y[:, :, None] - y[:, None, :]
        wrapped = math.pi - (math.pi - difference.abs()).abs()
        square = (x[:, :, None] - x[:, None, :]).square_().add_(wrapped.square_())
        theta = square.sqrt_() if beta == 1 else square.pow_(beta / 2)
        contraction = _Contraction(z, theta)
        out[chosen] = torch.stack([contraction(graph) for graph in graphs], 1)
        start = stop
    return out


def _chunk_end(lengths: Tensor, start: int) -> int:
    """Where a chunk of jets that begins at ``start`` ends: bounded in memory and in the padding it makes."""
    shortest = int(lengths[start])
    stop = start + 1
    fits = lengths[start:] <= max(1.2 * shortest, shortest + 4)
    last = start + int(fits.sum())
    while stop < last and (stop + 1 - start) * int(lengths[stop]) ** 2 <= ELEMENTS:
        stop += 1
    return stop


Key = tuple[Any, ...]


class _Contraction:
    """Evaluates multigraphs over one padded batch, each intermediate once.

    Keys say what a tensor is: ``("z",)`` the momenta; ``("theta", k)`` the k-th power of the distances;
    ``("times", a, b)`` an elementwise product; ``("apply", A, v)`` the matrix-vector product ``A v``;
    ``("chain", A, v, B)`` the matrix ``A diag(v) B``; ``("transpose", A)``.
    """

    def __init__(self, z: Tensor, theta: Tensor) -> None:
        self.known: dict[Key, Tensor] = {("z",): z, ("theta", 1): theta}

    def __call__(self, graph: Multigraph) -> Tensor:
        """The polynomial of every jet ``(B,)``."""
        powers = Counter((min(edge), max(edge)) for edge in graph)
        edges: dict[tuple[int, int], Key] = {edge: ("theta", power) for edge, power in powers.items()}
        vertices = {v for edge in edges for v in edge} or {0}
        return self._sum_out({v: ("z",) for v in vertices}, edges)

    def _sum_out(self, weights: dict[int, Key], edges: dict[tuple[int, int], Key]) -> Tensor:
        weights, edges = dict(weights), dict(edges)
        result: Tensor | None = None
        while weights:
            near_to = {v: [u for edge in edges if v in edge for u in edge if u != v] for v in weights}
            vertex = min(weights, key=lambda v: (len(near_to[v]), _cost(v, weights, edges), v))
            near = near_to[vertex]
            if len(near) > 2:
                rest = self._condition(vertex, weights, edges)
                return rest if result is None else result * rest
            weight = weights.pop(vertex)
            if not near:
                total = self._get(("sum", weight))
                result = total if result is None else result * total
            elif len(near) == 1:
                (u,) = near
                step = ("apply", self._oriented(edges, u, vertex, take=True), weight)
                weights[u] = _times(weights[u], step)
            else:
                u, v = sorted(near)
                left = self._oriented(edges, u, vertex, take=True)
                right = self._oriented(edges, vertex, v, take=True)
                chain = ("chain", left, weight, right)
                edges[u, v] = _times(edges[u, v], chain) if (u, v) in edges else chain
        assert result is not None
        return result

    def _oriented(self, edges: dict[tuple[int, int], Key], u: int, v: int, *, take: bool) -> Key:
        """The matrix from ``u`` to ``v``; edges are stored from the lower vertex to the higher."""
        edge = (min(u, v), max(u, v))
        key = edges.pop(edge) if take else edges[edge]
        return key if u < v else _transposed(key)

    def _condition(self, vertex: int, weights: dict[int, Key], edges: dict[tuple[int, int], Key]) -> Tensor:
        """Sums over a vertex of three neighbours or more by fixing it to each hit in turn."""
        rows = {
            u: self._get(self._oriented(edges, vertex, u, take=False))
            for edge in edges
            if vertex in edge
            for u in edge
            if u != vertex
        }
        own = self._get(weights[vertex])
        rest = {edge: key for edge, key in edges.items() if vertex not in edge}
        total = torch.zeros_like(own[:, 0])
        for i in range(own.shape[1]):
            fixed = _Contraction(self.known[("z",)], self.known[("theta", 1)])
            # Weights of this hit have their own names; everything free of it is shared.
            fixed.known = dict(self.known)
            named: dict[int, Key] = {}
            for u, weight in weights.items():
                if u == vertex:
                    continue
                named[u] = ("fixed", i, u) if u in rows else weight
                if u in rows:
                    fixed.known[named[u]] = self._get(weight) * rows[u][:, i]
            total += own[:, i] * fixed._sum_out(named, rest)
        return total

    def _get(self, key: Key) -> Tensor:
        if key not in self.known:
            self.known[key] = self._make(key)
        return self.known[key]

    def _make(self, key: Key) -> Tensor:
        kind = key[0]
        if kind == "theta":
            return self._get(("theta", key[1] - 1)) * self._get(("theta", 1))
        if kind == "times":
            return self._get(key[1]) * self._get(key[2])
        if kind == "sum":
            return self._get(key[1]).sum(1)
        if kind == "apply":
            return (self._get(key[1]) @ self._get(key[2])[:, :, None])[:, :, 0]
        if kind == "chain":
            return (self._get(key[1]) * self._get(key[2])[:, None, :]) @ self._get(key[3])
        assert kind == "transpose", key
        return self._get(key[1]).transpose(1, 2)


def _cost(vertex: int, weights: dict[int, Key], edges: dict[tuple[int, int], Key]) -> int:
    """How special the tensors around a vertex are: summing out plain ones first lets graphs share the result."""
    return len(repr(weights[vertex])) + sum(
        len(repr(key)) + 10 * (key != ("theta", 1)) for edge, key in edges.items() if vertex in edge
    )


def _times(a: Key, b: Key) -> Key:
    """A product, named alike in either order."""
    return ("times", *sorted((a, b), key=repr))


def _transposed(key: Key) -> Key:
    """The transpose of a matrix, named as what it is where that is known."""
    if key[0] == "theta":
        return key
    if key[0] == "transpose":
        return key[1]
    if key[0] == "chain":
        return ("chain", _transposed(key[3]), key[2], _transposed(key[1]))
    if key[0] == "times":
        return _times(_transposed(key[1]), _transposed(key[2]))
    return ("transpose", key)
