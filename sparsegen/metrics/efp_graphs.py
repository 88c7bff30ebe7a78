"""The 36 multigraphs of at most four edges, in the order in which energy-flow polynomials are usually listed.

The first one, without edges, is a single vertex. Disconnected graphs are products of connected ones.

References:
    Energy flow polynomials: A complete linear basis for jet substructure, Komiske, Metodiev, Thaler, 2018,
    https://arxiv.org/abs/1712.07124
"""

__all__ = ["EFPS_D4", "EFPS_N4_D4_PRIME", "Multigraph"]

Multigraph = tuple[tuple[int, int], ...]

EFPS_D4: tuple[Multigraph, ...] = (
    (),
    ((0, 1),),
    (
        (0, 1),
        (0, 1),
    ),
    (
        (0, 1),
        (0, 1),
        (0, 1),
    ),
    (
        (0, 1),
        (0, 1),
        (0, 1),
        (0, 1),
    ),
    (
        (0, 1),
        (0, 2),
    ),
    (
        (0, 1),
        (0, 2),
        (0, 2),
    ),
    (
        (0, 1),
        (0, 2),
        (0, 2),
        (0, 2),
    ),
    (
        (0, 1),
        (0, 1),
        (0, 2),
        (0, 2),
    ),
    (
        (0, 1),
        (0, 2),
        (1, 2),
    ),
    (
        (0, 1),
        (0, 2),
        (0, 2),
        (1, 2),
    ),
    (
        (0, 1),
        (0, 2),
        (0, 3),
    ),
    (
        (0, 1),
        (0, 2),
        (0, 2),
        (0, 3),
    ),
    (
        (0, 1),
        (0, 2),
        (1, 3),
    ),
    (
        (0, 1),
        (0, 2),
        (0, 2),
        (1, 3),
    ),
    (
        (0, 1),
        (0, 1),
        (0, 2),
        (1, 3),
    ),
    (
        (0, 1),
        (0, 2),
        (1, 2),
        (0, 3),
    ),
    (
        (0, 1),
        (0, 2),
        (1, 3),
        (2, 3),
    ),
    (
        (0, 1),
        (0, 2),
        (0, 3),
        (0, 4),
    ),
    (
        (0, 1),
        (0, 2),
        (0, 3),
        (1, 4),
    ),
    (
        (0, 1),
        (0, 2),
        (1, 3),
        (2, 4),
    ),
    (
        (0, 1),
        (2, 3),
    ),
    (
        (0, 1),
        (2, 3),
        (2, 3),
    ),
    (
        (0, 1),
        (2, 3),
        (2, 3),
        (2, 3),
    ),
    (
        (0, 1),
        (0, 1),
        (2, 3),
        (2, 3),
    ),
    (
        (0, 1),
        (2, 3),
        (2, 4),
    ),
    (
        (0, 1),
        (0, 1),
        (2, 3),
        (2, 4),
    ),
    (
        (0, 1),
        (2, 3),
        (2, 4),
        (2, 4),
    ),
    (
        (0, 1),
        (2, 3),
        (2, 4),
        (3, 4),
    ),
    (
        (0, 1),
        (2, 3),
        (4, 5),
    ),
    (
        (0, 1),
        (2, 3),
        (2, 4),
        (2, 5),
    ),
    (
        (0, 1),
        (2, 3),
        (2, 4),
        (3, 5),
    ),
    (
        (0, 1),
        (0, 2),
        (3, 4),
        (3, 5),
    ),
    (
        (0, 1),
        (2, 3),
        (4, 5),
        (4, 5),
    ),
    (
        (0, 1),
        (2, 3),
        (4, 5),
        (4, 6),
    ),
    (
        (0, 1),
        (2, 3),
        (4, 5),
        (6, 7),
    ),
)
"""Edge lists of all multigraphs with four edges or fewer and no isolated vertex, and the single vertex."""

EFPS_N4_D4_PRIME: tuple[Multigraph, ...] = tuple(EFPS_D4[i] for i in (12, 14, 15, 16, 17))
"""The five connected ones of four vertices and four edges, whose mean W1 is the published W1-EFP."""
