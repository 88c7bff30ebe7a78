"""The normalising flow."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from sparsegen.errors import ConfigError, MissingExtraError
from sparsegen.models.priors.base import PRIORS, LatentPrior, fitted, fresh_seed

__all__ = ["Flow"]

_LOOK = 50
"""Steps between two looks at the codes that are kept apart."""


@PRIORS.register("flow")
class Flow(LatentPrior):
    """A neural spline flow; of its weights, those are kept that give codes kept apart the highest likelihood.

    References:
        Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032

    Args:
        transforms: Autoregressive transformations.
        width: Width of the two hidden layers of each.
        steps: Steps of Adam.
        batch: Codes a step.
        lr: Its learning rate.
    """

    def __init__(
        self, transforms: int = 3, width: int = 64, steps: int = 1000, batch: int = 256, lr: float = 1e-3
    ) -> None:
        if min(transforms, width, steps, batch) < 1 or not lr > 0:
            raise ConfigError(
                f"prior flow: transforms={transforms}, width={width}, steps={steps}, batch={batch}, lr={lr}; "
                "all must be positive"
            )
        self.transforms, self.width, self.steps, self.batch, self.lr = transforms, width, steps, batch, lr
        self.flow: nn.Module | None = None
        self.centre = torch.zeros(0)
        self.spread = torch.zeros(0)

    def _make(self, dim: int) -> Any:
        try:
            import zuko
        except ImportError as error:
            raise MissingExtraError("zuko", "flows", "a normalising flow of codes") from error
        return zuko.flows.NSF(dim, transforms=self.transforms, hidden_features=(self.width, self.width))

    def fit(self, codes: Tensor, generator: torch.Generator) -> dict[str, Any]:
        self.centre, self.spread = codes.mean(0), codes.std(0, correction=0)
        y = (codes - self.centre) / self.spread
        y = y[torch.randperm(len(y), generator=generator)]
        apart = len(y) // 10
        held, seen = (y[:apart], y[apart:]) if apart else (y, y)
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(fresh_seed(generator))
            flow = self._make(codes.shape[1])
            adam = torch.optim.Adam(flow.parameters(), lr=self.lr)
            best, kept, at = torch.inf, copy.deepcopy(flow.state_dict()), 0
            for step in range(1, self.steps + 1):
                rows = torch.randint(len(seen), (min(self.batch, len(seen)),), generator=generator)
                loss = -flow().log_prob(seen[rows]).mean()
                adam.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
                adam.step()
                if step % _LOOK == 0 or step == self.steps:
                    with torch.no_grad():
                        value = -float(flow().log_prob(held).mean())
                    if value < best:
                        best, kept, at = value, copy.deepcopy(flow.state_dict()), step
        flow.load_state_dict(kept)
        self.flow = flow.requires_grad_(False)
        return {"nll": best, "best_step": at}

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        flow: Any = fitted(self.flow)
        noise = torch.randn(n, len(self.centre), generator=generator)
        return flow().transform.inv(noise) * self.spread + self.centre

    def state(self) -> dict[str, Any]:
        weights = None if self.flow is None else dict(self.flow.state_dict())
        shape = {"transforms": self.transforms, "width": self.width}
        return {"weights": weights, "centre": self.centre, "spread": self.spread, "shape": shape}

    def load(self, state: dict[str, Any]) -> None:
        self.centre, self.spread, self.flow = state["centre"], state["spread"], None
        self.transforms, self.width = state["shape"]["transforms"], state["shape"]["width"]
        if state["weights"] is not None:
            with torch.random.fork_rng(devices=[]):
                self.flow = self._make(len(self.centre)).requires_grad_(False)
            self.flow.load_state_dict(state["weights"])
