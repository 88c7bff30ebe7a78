"""The law of the number of hits is that of the training set, near the condition."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sparsegen.errors import DataError
from sparsegen.events import Events
from sparsegen.models import EmpiricalMultiplicity
from sparsegen.models import multiplicity as module


def events(counts: torch.Tensor, condition: torch.Tensor | None = None) -> Events:
    total = int(counts.sum())
    return Events(
        torch.zeros(total, 2),
        torch.ones(total, 1),
        torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
        axes=("x", "y"),
        columns=("energy",),
        condition=condition,
        conditions=tuple(f"c{i}" for i in range(condition.shape[1])) if condition is not None else (),
    )


def fitted(counts: torch.Tensor, condition: torch.Tensor | None = None, **options: Any) -> EmpiricalMultiplicity:
    law, whole = EmpiricalMultiplicity(**options), events(counts, condition)
    half = len(counts) // 2
    log = law.fit(lambda: [whole[:half], whole[half:]], torch.Generator())
    assert log == {"events": len(counts), "mean": pytest.approx(float(counts.double().mean()))}
    return law


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_law_is_reproduced() -> None:
    counts = torch.tensor([0, 2, 2, 2, 5, 5, 9, 9, 9, 9])
    drawn = fitted(counts).sample(20_000, generator=seeded())
    shares = torch.bincount(drawn, minlength=10) / 20_000
    expected = torch.bincount(counts, minlength=10) / 10
    # Five standard deviations of a share of 0.4 in 20,000 draws.
    torch.testing.assert_close(shares, expected, rtol=0, atol=5 * (0.24 / 20_000) ** 0.5)
    assert set(drawn.tolist()) == set(counts.tolist())


def test_draws_come_from_neighbours_in_the_condition() -> None:
    pt = torch.linspace(0, 1, 200)
    law = fitted((100 * pt).long() + 1, pt[:, None], neighbours=10)
    drawn = law.sample(500, torch.full((500, 1), 0.5), seeded())
    assert int(drawn.min()) >= 47 and int(drawn.max()) <= 54 and len(drawn.unique()) > 3


def test_conditions_count_in_units_of_their_spread_whatever_their_offset() -> None:
    generator = seeded(1)
    large = 1000 + torch.rand(300, 1, generator=generator)
    small = 1e-3 * torch.rand(300, 1, generator=generator)
    constant = torch.full((300, 1), 7.0)
    condition = torch.cat([large, small, constant], 1)
    law = fitted(torch.arange(1, 301), condition, neighbours=1)
    # With one neighbour every training condition gives back its own count, also beside a column that never varies.
    assert law.sample(300, condition, seeded()).tolist() == list(range(1, 301))
    away = condition.clone()
    away[:, 2] = 8.0
    assert law.sample(300, away, seeded()).tolist() == list(range(1, 301))


def test_under_a_class_label_the_whole_class_is_drawn() -> None:
    label = (torch.arange(400) % 2)[:, None].float()
    law = fitted(torch.arange(1, 401), label, neighbours=5)
    drawn = law.sample(2000, torch.ones(2000, 1), seeded())
    assert bool((drawn % 2 == 0).all()), "a count of the other class"
    assert len(drawn.unique()) > 150, "only a few of the 200 events of the class are ever drawn"


def test_one_training_event_is_law_enough() -> None:
    law = fitted(torch.tensor([3]), torch.tensor([[0.5]]))
    assert law.sample(4, torch.rand(4, 1)).tolist() == [3] * 4


def test_seeds_reproduce_and_the_state_restores() -> None:
    condition = torch.rand(50, 2, generator=seeded())
    law, other = fitted(torch.arange(1, 51), condition), EmpiricalMultiplicity()
    other.load_state_dict(law.state_dict())
    first = law.sample(50, condition, seeded(1))
    assert torch.equal(other.sample(50, condition, seeded(1)), first)
    assert not torch.equal(law.sample(50, condition, seeded(2)), first)


def test_draws_use_a_generator_of_the_cpu_whatever_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere:
        """A generator of a device that this machine may lack."""

        device = torch.device("cuda")

    seen: list[Any] = []
    plain = torch.randint

    def randint(*arguments: Any, generator: Any = None, device: Any = None, **options: Any) -> torch.Tensor:
        seen.append((type(generator).__name__, str(device)))
        generator = seeded() if isinstance(generator, Elsewhere) else generator
        return plain(*arguments, generator=generator, **options)

    monkeypatch.setattr(module.torch, "randint", randint)
    drawn = fitted(torch.arange(1, 11)).sample(5, generator=Elsewhere())  # type: ignore[arg-type]
    assert drawn.device.type == "cpu" and seen == [("Elsewhere", "cuda"), ("Generator", "None")]


@pytest.mark.gpu
def test_a_generator_of_a_gpu_draws_and_reproduces() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    law = fitted(torch.arange(1, 51), torch.rand(50, 1))
    condition = torch.rand(20, 1, device="cuda")
    a, b = (law.sample(20, condition, torch.Generator("cuda").manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b)


def test_what_is_missing_is_said() -> None:
    with pytest.raises(DataError, match=r"not fitted; train the model first or pass counts="):
        EmpiricalMultiplicity().sample(3)
    law = fitted(torch.arange(1, 5), torch.rand(4, 1))
    with pytest.raises(DataError, match=r"fitted under conditions; pass 3 rows of condition=, not none"):
        law.sample(3)
    with pytest.raises(DataError, match=r"pass 3 rows of condition=, not 2"):
        law.sample(3, torch.rand(2, 1))
