"""Scales of the data: what a network draws goes back to the data's units as it was learnt from them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparsegen import nets
from sparsegen.errors import DataError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid
from sparsegen.nets import Schema
from sparsegen.nets.base import bounded_log_std
from sparsegen.nets.schema import Scaler

GRID = Grid.regular((4, 4), (0.0, 0.0), (1.0, 1.0), ("x", "y"))


def showers(n: int = 400, seed: int = 0) -> Events:
    """Energies over three decades, each shared by a few hits; a label beside."""
    generator = torch.Generator().manual_seed(seed)
    energy = 10 ** (3 * torch.rand(n, generator=generator))
    counts = torch.randint(1, 6, (n,), generator=generator)
    share = torch.rand(int(counts.sum()), generator=generator) + 0.1
    batch = torch.repeat_interleave(torch.arange(n), counts)
    share = share / torch.zeros(n).index_add(0, batch, share)[batch]
    return Events(
        torch.rand(len(share), 2, generator=generator),
        (energy[batch] * share)[:, None],
        torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
        axes="xy",
        columns=(Column("energy", "GeV", True),),
        condition=torch.stack([energy, torch.arange(n) % 3.0], 1),
        conditions=("incident_energy", "class"),
        grid=GRID,
    )


def test_restoring_undoes_standardising_within_five_standard_deviations() -> None:
    scaler = Scaler(Schema.fit(showers())).double()
    y = torch.linspace(-5, 5, 41, dtype=torch.float64)[:, None]
    torch.testing.assert_close(scaler.standardise_total(scaler.total(y)), y)
    # features of almost nothing count as a thousandth of a small one
    upper = y[y[:, 0] > -1]
    torch.testing.assert_close(scaler.standardise(scaler.restore(upper)), upper, rtol=0, atol=0.01)
    far = torch.tensor([[-1e3], [-8.0], [8.0], [1e3]], dtype=torch.float64)
    assert bool((scaler.standardise_total(scaler.total(far)).abs() <= 6).all())


def test_the_bound_bends_smoothly() -> None:
    scaler = Scaler(Schema.fit(showers())).double()
    value = lambda y: scaler.total(y).log().sum()
    y = torch.tensor([[4.999], [5.001], [-5.001]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(y), y)
    torch.testing.assert_close(slope, scaler.total_std.expand(3, 1), rtol=1e-5, atol=0)


def test_a_positive_condition_over_a_decade_is_seen_by_its_logarithm_and_a_label_as_it_is() -> None:
    events = showers()
    schema = Schema.fit(events)
    assert schema.condition_log == (True, False)
    assert Schema.from_dict(schema.to_dict()) == schema
    seen = Scaler(schema).condition(events.condition)  # type: ignore[arg-type]
    torch.testing.assert_close(seen.mean(0), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(seen.std(0, correction=0), torch.ones(2), rtol=1e-4, atol=0)
    energy = events.condition[:, 0]  # type: ignore[index]
    log = energy.log()
    torch.testing.assert_close(seen[:, 0], (log - log.mean()) / log.std(correction=0), rtol=1e-4, atol=1e-4)
    narrow = Schema.fit(events.with_condition(800 + energy[:, None], ("jet_pt",)))
    assert narrow.condition_log == (False,)


@pytest.mark.parametrize("value", [-1.0, 0.0, float("nan")])
def test_a_condition_that_makes_no_sense_is_named(value: float) -> None:
    decoder = nets.build("points", "decoder", schema=Schema.fit(showers()), latent=2, width=4)
    condition = torch.tensor([[10.0, 1.0], [value, 1.0]])
    with pytest.raises(DataError, match=r"condition incident_energy=(-1|0|nan) of event 1; expected a positive number"):
        decoder(torch.zeros(2, 2), condition, counts=torch.tensor([1, 2]))


@pytest.mark.parametrize("family", list(nets.FAMILIES))
def test_totals_start_as_those_of_the_data_whatever_the_code(family: str) -> None:
    events = showers()
    decoder = nets.build(family, "decoder", schema=Schema.fit(events, GRID), latent=2, width=4)
    z = 100 * torch.randn(9, 2, generator=torch.Generator().manual_seed(1))
    mean, log_std = decoder(z, events.condition[:9], target=events[:9]).total  # type: ignore[index]
    torch.testing.assert_close(mean, torch.zeros(9, 1))
    torch.testing.assert_close(log_std, torch.zeros(9, 1), rtol=0, atol=1e-6)
    assert float(bounded_log_std(torch.tensor(1e3))) == 1.5


@pytest.mark.parametrize("family", list(nets.FAMILIES))
def test_a_decoder_learns_totals_that_follow_the_condition(family: str) -> None:
    events = showers(600)
    torch.manual_seed(0)
    decoder = nets.build(family, "decoder", schema=Schema.fit(events, GRID), latent=2, width=4)
    adam = torch.optim.Adam(decoder.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(2)

    def drawn(some: Events) -> Tensor:
        z = torch.zeros(len(some), 2)
        made = decoder(z, some.condition, counts=some.counts, generator=generator).events
        return (made.total("energy") / some.condition[:, 0]).log()  # type: ignore[index, no-any-return]

    for _ in range(150):
        rows = torch.randint(len(events), (64,), generator=generator)
        some = events[rows]
        decoded = decoder(torch.zeros(64, 2), some.condition, target=some, generator=generator)
        loss = decoder._total_loss(decoded, some).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        response = drawn(events)
    assert abs(float(response.mean())) < 0.1
    assert float(response.std()) < 0.5, "energies over three decades have a standard deviation of 2"
