"""One checker a role: hold a network to its contract in one call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sparsegen.events import Events
from sparsegen.nets.base import Decoder

__all__ = ["assert_critic", "assert_decoder", "assert_encoder"]

MakeEvents = Callable[[list[int]], Events]


def assert_encoder(net: nn.Module, make_events: MakeEvents) -> None:
    """Checks an encoder: shapes for any event size, order and padding do not matter, events do not see each other.

    Args:
        net: ``events -> (B, d)``.
        make_events: Hit counts to random events: ``make_events([3, 0, 5])`` gives a batch of three.

    Raises:
        AssertionError: Says which promise is broken.
    """
    _assert_reads(net, make_events, 2)


def assert_critic(net: nn.Module, make_events: MakeEvents) -> None:
    """Checks a critic as :func:`assert_encoder` does, and that its gradient has a gradient of its own."""
    _assert_reads(net, make_events, 1)
    events = make_events([3, 5]).counted()
    features = events.features.detach().clone().requires_grad_()
    scores = net(events.with_features(features))
    (gradient,) = torch.autograd.grad(scores.sum(), features, create_graph=True)
    second = torch.autograd.grad(
        gradient.square().sum(), [p for p in net.parameters() if p.requires_grad], materialize_grads=True
    )
    assert any(bool(g.abs().sum() > 0) for g in second), "a gradient penalty does not reach any parameter"


def _assert_reads(net: nn.Module, make_events: MakeEvents, ndim: int) -> None:
    was_training = net.training
    net.eval()
    try:
        _assert_invariances(net, make_events, ndim)
    finally:
        net.train(was_training)
    _assert_gradients(net, net(make_events([4, 7, 2])))


def _assert_invariances(net: nn.Module, make_events: MakeEvents, ndim: int) -> None:
    events = make_events([4, 0, 7, 1])
    result = net(events)
    assert result.ndim == ndim and len(result) == 4, f"four events give {tuple(result.shape)}"
    assert bool(result.isfinite().all()), "an event of 0, 1, 4 or 7 hits gives a value that is not finite"
    tolerance = 1e-4 * (1 + float(result.detach().abs().max()))

    order = torch.cat(
        [torch.randperm(int(n)) + int(start) for n, start in zip(events.counts, events.offsets, strict=False)]
    )
    shuffled = events.replace(coords=events.coords[order], features=events.features[order])
    assert _near(net(shuffled), result, tolerance), "the order of hits within an event changes the result"

    coords, features, mask = events.to_padded(20)
    padded = Events.from_padded(
        coords,
        features,
        mask,
        axes=events.axes,
        columns=events.columns,
        condition=events.condition,
        conditions=events.conditions,
        grid=events.grid,
    )
    assert _near(net(padded), result, tolerance), "padding changes the result"
    alone = torch.cat([net(events[i]) for i in range(len(events))])
    assert _near(alone, result, tolerance), "an event's result depends on its batch mates"
    assert _near(net(events[[2, 0]]), result[[2, 0]], tolerance), "the order of events changes their results"


def assert_decoder(net: Decoder, make_events: MakeEvents) -> None:
    """Checks a decoder: shapes, multiplicities, seeds, reconstruction terms and gradients.

    Args:
        net: The decoder.
        make_events: Hit counts to random events of the decoder's data.

    Raises:
        AssertionError: Says which promise is broken.
    """
    target = make_events([4, 1, 7])
    like = next(net.parameters())
    z = torch.randn(3, net.latent, dtype=like.dtype)

    def run(seed: int, **options: object) -> Events:
        generator = torch.Generator().manual_seed(seed)
        events: Events = net(z, target.condition, generator=generator, **options).events
        return events

    counts = torch.tensor([2, 0, 5])
    made = run(1, counts=counts)
    assert made.counts.tolist() == counts.tolist(), f"asked for {counts.tolist()} hits, got {made.counts.tolist()}"
    assert made.axes == target.axes and made.columns == target.columns, "axes or columns differ from the data's"
    assert bool(made.features.isfinite().all()) and bool(made.coords.isfinite().all()), "a hit is not finite"
    assert (made.condition is None) == (target.condition is None), "the condition is not stamped on the events"
    assert torch.equal(run(1, counts=counts).features, made.features), "the same seed gives other events"
    Events(**{name: getattr(made, name) for name in ("coords", "features", "offsets", "axes", "columns", "grid")})
    if not net.needs_counts:
        assert int(run(2).counts.min()) >= 1, "an event lost all its cells"

    decoded = net(z, target.condition, target=target, generator=torch.Generator().manual_seed(3))
    terms = net.reconstruction(decoded, target)
    for name, term in terms.items():
        assert term.shape == (3,) and bool(term.isfinite().all()), f"reconstruction term {name} is {term}"
    _assert_gradients(net, sum((t.sum() for t in terms.values()), torch.zeros(())))

    z.requires_grad_()
    events = net(z, target.condition, counts=torch.tensor([3, 3, 3]), generator=torch.Generator().manual_seed(4)).events
    weights = torch.linspace(0.5, 1.5, events.features.numel()).view_as(events.features).to(events.features.dtype)
    loss = (events.features * weights).square().sum()
    if not events.is_cells:
        loss = loss + events.coords.square().sum()
    (gradient,) = torch.autograd.grad(loss, z)
    assert bool(gradient.isfinite().all()) and bool((gradient.abs().sum(1) > 0).all()), (
        "a loss on the events does not reach the code"
    )


def _assert_gradients(net: nn.Module, output: Tensor) -> None:
    net.zero_grad(set_to_none=True)
    (output.square() if output.ndim else output).sum().backward()
    dead = [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert not dead, f"no gradient reaches {', '.join(dead)}"
    bad = [name for name, p in net.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
    assert not bad, f"the gradient of {', '.join(bad)} is not finite"
    net.zero_grad(set_to_none=True)


def _near(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return bool((a - b).abs().max() <= tolerance)
