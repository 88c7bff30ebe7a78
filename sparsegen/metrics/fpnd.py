"""Fréchet ParticleNet distance: of a jet classifier's activations, with statistics of any reference.

The network is ParticleNet as it is used for the published distance: three edge convolutions over the 16 nearest
particles, by angle first and by features after, a mean over particles, and 256 activations before the last ReLU. Its
layers have the names of the published weights, so that a user who has those can load them, and the published
statistics with them; :func:`fit_reference` makes statistics of any other data, and a network of one's own can be
trained like any module.

References:
    Particle cloud generation with message passing generative adversarial networks, Kansal et al., 2021,
    https://arxiv.org/abs/2106.11535
    ParticleNet: jet tagging via particle clouds, Qu, Gouskos, 2020, https://arxiv.org/abs/1902.08570
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sparsegen.errors import ConfigError, DataError
from sparsegen.events import Events
from sparsegen.metrics.features import Moments
from sparsegen.metrics.gaussians import frechet_distance
from sparsegen.metrics.inputs import EventsLike, jet_view, portions, valid_events, warn_small
from sparsegen.metrics.protocol import Protocol, resolve
from sparsegen.result import Result

__all__ = ["ParticleNet", "ReferenceStatistics", "fit_reference", "fpnd", "load_published", "published_scaling"]

NEIGHBOURS = 16
WIDTHS = (64, 128, 256)
ACTIVATIONS = 256


class _EdgeNet(nn.Module):
    """Three linear layers with batch norm and ReLU, on pairs of particles."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for size in (2 * features, width, width):
            layers += [nn.Linear(size, width), nn.BatchNorm1d(width), nn.ReLU()]
        self.model = nn.Sequential(*layers)

    def forward(self, pairs: Tensor) -> Tensor:
        """``(..., 2 F)`` -> ``(..., width)``."""
        return self.model(pairs.flatten(0, -2)).view(*pairs.shape[:-1], -1)


class ParticleNet(nn.Module):
    """Jet classifier on edge convolutions, in plain torch operations.

    Args:
        features: Features of a particle; the first two are its angles.
        classes: Classes of the last layer.

    Example:
        >>> net = ParticleNet().eval()
        >>> net(torch.randn(4, 30, 3)).shape, net.activations(torch.randn(4, 30, 3)).shape
        (torch.Size([4, 5]), torch.Size([4, 256]))
    """

    def __init__(self, features: int = 3, classes: int = 5) -> None:
        super().__init__()
        inputs = np.cumsum([features, *WIDTHS]).tolist()
        self.edge_nets = nn.ModuleList(_EdgeNet(size, width) for size, width in zip(inputs, WIDTHS, strict=False))
        self.fc1 = nn.Sequential(nn.Linear(inputs[-1], ACTIVATIONS))
        self.dropout = nn.Dropout(0.1)
        self.fc2 = nn.Linear(ACTIVATIONS, classes)

    def activations(self, particles: Tensor) -> Tensor:
        """The last hidden layer before its ReLU ``(B, 256)``, of ``particles`` ``(B, N, F)``."""
        x = particles
        for i, net in enumerate(self.edge_nets):
            partner = _nearest(x[..., :2] if i == 0 else x)
            neighbours = torch.gather(
                x[:, None].expand(-1, x.shape[1], -1, -1), 2, partner[..., None].expand(-1, -1, -1, x.shape[2])
            )
            own = x[:, :, None].expand_as(neighbours)
            x = torch.cat([net(torch.cat([own, neighbours - own], 3)).mean(2), x], 2)
        return self.fc1(x.mean(1))

    def forward(self, particles: Tensor) -> Tensor:
        """Logits ``(B, classes)`` of ``particles`` ``(B, N, F)``."""
        return self.fc2(self.dropout(torch.relu(self.activations(particles))))


def _nearest(x: Tensor) -> Tensor:
    """Indices of the nearest other particles ``(B, N, k)``."""
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    return distance.topk(min(NEIGHBOURS, x.shape[1] - 1), largest=False).indices


def published_scaling(particles: Tensor) -> Tensor:
    """What the published weights expect of eta, phi and pt ``(..., 3)``: each over its maximum, pt shifted by -0.5."""
    largest = particles.new_tensor([1.6211985349655151, 0.520724892616272, 0.8934717178344727])
    return particles / largest + particles.new_tensor([0.0, 0.0, -0.5])


@dataclass(frozen=True)
class ReferenceStatistics:
    """What a Fréchet distance needs of the real side.

    Args:
        mean: ``(F,)`` of the activations.
        covariance: ``(F, F)``.
        n: Events behind them; 0 where unknown.
        source: Where they come from, for the protocol.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    n: int
    source: str

    def save(self, path: str | Path) -> None:
        """Writes a ``.npz`` file."""
        np.savez(path, mean=self.mean, covariance=self.covariance, n=self.n, source=self.source)

    @classmethod
    def load(cls, path: str | Path) -> ReferenceStatistics:
        """Reads what :meth:`save` wrote.

        Raises:
            DataError: The file is missing or holds something else.
        """
        try:
            with np.load(path, allow_pickle=False) as held:
                return cls(held["mean"], held["covariance"], int(held["n"]), str(held["source"]))
        except (OSError, KeyError, ValueError) as error:
            raise DataError(
                f"{path}: not a file of reference statistics ({error}); make one with fit_reference"
            ) from error


Scaling = Callable[[Tensor], Tensor]


def _padded(events: Events, particles: int) -> Tensor:
    """eta, phi and pt of the hardest particles ``(B, particles, 3)``, falling in pt, zero where there are fewer."""
    eta, phi, pt = jet_view(events).read(events)
    order = pt.argsort(descending=True, stable=True)
    order = order[events.batch[order].argsort(stable=True)]
    rank = torch.arange(len(order)) - events.offsets[:-1][events.batch]
    keep = rank < particles
    out = torch.zeros(len(events), particles, 3)
    out[events.batch[keep], rank[keep]] = torch.stack([eta, phi, pt], 1)[order[keep]].float()
    return out


@torch.no_grad()
def _moments(
    events: EventsLike, net: ParticleNet, particles: int, scaling: Scaling, role: str, invalid: str
) -> tuple[Moments, int]:
    net.eval()
    found, left_out = Moments(), 0
    for portion in portions(events, 256):
        kept, bad = valid_events(portion, role=role, invalid=invalid)
        left_out += bad
        found.update(net.activations(scaling(_padded(kept, particles))).double().numpy())
    if found.n < 2:
        raise DataError(f"fpnd: {found.n} {role} jets can be evaluated; use 2 or more, and 2,000 for a stable number")
    return found, left_out


def fit_reference(
    reference: EventsLike, net: ParticleNet, *, particles: int = 30, scaling: Scaling = published_scaling
) -> ReferenceStatistics:
    """Mean and covariance of a network's activations on real jets, to keep and compare with.

    Args:
        reference: Real jets.
        net: The network, on the CPU.
        particles: Hardest particles that enter; jets with fewer are padded with zeros, as in the publication.
        scaling: What is done to eta, phi and pt before the network.
    """
    found, _ = _moments(reference, net, particles, scaling, "reference", "leave_out")
    return ReferenceStatistics(found.mean, found.covariance, found.n, f"{found.n} events")


def load_published(folder: str | Path, jet_type: str) -> tuple[ParticleNet, ReferenceStatistics]:
    """The published weights and statistics, from the folder of an installed package that ships them.

    Args:
        folder: The folder with ``pnet_state_dict.pt``, ``g_mu.txt``, ``g_sigma.txt`` and so on
            (``.../jetnet/evaluation/fpnd_resources/jetnet/30_particles``).
        jet_type: ``g``, ``q`` or ``t``.

    Raises:
        DataError: A file is missing.
    """
    folder = Path(folder)
    files = [folder / name for name in ("pnet_state_dict.pt", f"{jet_type}_mu.txt", f"{jet_type}_sigma.txt")]
    missing = [f.name for f in files if not f.is_file()]
    if missing:
        raise DataError(
            f"{folder}: {', '.join(missing)} not found; expected the folder .../fpnd_resources/jetnet/30_particles"
        )
    weights: dict[str, Any] = torch.load(files[0], map_location="cpu", weights_only=True)
    net = ParticleNet()
    # The published module also lists each edge network under its convolution.
    known = {name: value for name, value in weights.items() if not name.startswith("edge_convs.")}
    net.load_state_dict(known)
    mean, covariance = np.loadtxt(files[1]), np.loadtxt(files[2])
    return net, ReferenceStatistics(mean, covariance, 50_000, f"published, {jet_type}")


def fpnd(
    generated: EventsLike,
    reference: EventsLike | ReferenceStatistics,
    net: ParticleNet,
    *,
    particles: int = 30,
    scaling: Scaling = published_scaling,
    protocol: Protocol | str | None = None,
    seed: int = 0,
) -> Result:
    """Fréchet distance of a ParticleNet's activations.

    The number depends on the network: only numbers of one network and one reference compare.

    Args:
        generated: Generated jets.
        reference: Real jets, or statistics of them.
        net: The network, on the CPU.
        particles: Hardest particles that enter.
        scaling: What is done to eta, phi and pt before the network.
        protocol: A :class:`Protocol` or its name; its treatment of invalid events matters.
        seed: Of the split behind the floor, which is measured where real jets are given.
    """
    setting = resolve(protocol)
    if particles < 2:
        raise ConfigError(f"fpnd: particles={particles}; expected 2 or more")
    ours, invalid = _moments(generated, net, particles, scaling, "generated", setting.invalid)
    floor, how = float("nan"), "not measured: only statistics of the reference were given"
    if isinstance(reference, ReferenceStatistics):
        theirs = reference
    else:
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(reference)))
        real = reference[:][order]
        half = len(real) // 2
        halves = [
            _moments(x, net, particles, scaling, "reference", setting.invalid)[0] for x in (real[:half], real[half:])
        ]
        # The mean of a squared distance between samples of one law falls as 1 / n.
        scale = (1 / ours.n + 1 / len(real)) / (1 / halves[0].n + 1 / halves[1].n)
        floor = scale * frechet_distance(*(v for h in halves for v in (h.mean, h.covariance)))
        how = f"halves of the reference, {half} each, scaled to the sizes compared"
        both = halves[0].merge(halves[1])
        theirs = ReferenceStatistics(both.mean, both.covariance, both.n, f"{both.n} events")
    note: dict[str, Any] = {
        "name": setting.name,
        "events": [ours.n, theirs.n],
        "reference": theirs.source,
        "features": f"{ACTIVATIONS} activations of a ParticleNet, {particles} particles",
        "seed": seed,
        "floor": how,
    }
    warn_small("fpnd", ours.n, 2_000, note)
    value = frechet_distance(ours.mean, ours.covariance, theirs.mean, theirs.covariance)
    return Result("fpnd", value, n=ours.n, protocol=note, floor=floor, invalid=invalid)
