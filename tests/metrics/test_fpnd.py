import math

import numpy as np
import pytest
import torch

from sparsegen.errors import ConfigError, DataError
from sparsegen.metrics.fpnd import (
    ParticleNet,
    ReferenceStatistics,
    fit_reference,
    fpnd,
    load_published,
    published_scaling,
)
from sparsegen.metrics.gaussians import frechet_distance

pytestmark = pytest.mark.filterwarnings("ignore::sparsegen.metrics.SmallSampleWarning")


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return ParticleNet().eval()


def test_activations_equal_edge_convolutions_of_torch_geometric(net):
    from torch_geometric.nn import EdgeConv, global_mean_pool

    x = torch.randn(3, 20, 3, generator=torch.Generator().manual_seed(1))
    batch = torch.arange(3).repeat_interleave(20)
    flat = x.reshape(-1, 3)
    with torch.no_grad():
        expected = flat
        for i, edge in enumerate(net.edge_nets):
            place = expected[:, :2] if i == 0 else expected
            distance = torch.cdist(place, place).masked_fill(batch[:, None] != batch, torch.inf)
            partner = distance.fill_diagonal_(torch.inf).topk(16, largest=False).indices
            edges = torch.stack([partner.flatten(), torch.arange(60).repeat_interleave(16)])
            expected = torch.cat([EdgeConv(edge.model, aggr="mean")(expected, edges), expected], 1)
        expected = net.fc1(global_mean_pool(expected, batch))
        assert torch.allclose(net.activations(x), expected, rtol=1e-4, atol=1e-5)


def test_activations_do_not_depend_on_the_order_of_particles(net):
    x = torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.allclose(net.activations(x), net.activations(x.flip(1)), rtol=1e-4, atol=1e-5)


def test_distance_equals_the_formula_on_the_activations(net, jets, more_jets):
    jets, more_jets = jets[:60], more_jets[:50]
    sides = []
    for events in (more_jets, jets):
        padded = torch.zeros(len(events), 30, 3)
        for i in range(len(events)):
            one = torch.cat([events[i].coords, events[i].features], 1)
            one = one[one[:, 2].argsort(descending=True)][:30]
            padded[i, : len(one)] = one
        with torch.no_grad():
            found = net.activations(published_scaling(padded)).double().numpy()
        sides += [found.mean(0), np.cov(found.T)]
    result = fpnd(more_jets, jets, net)
    assert result.value == pytest.approx(frechet_distance(*sides), rel=1e-3)
    assert result.floor > 0
    assert fpnd(more_jets.replace(coords=2 * more_jets.coords), jets, net).value > 5 * result.value


def test_statistics_of_any_reference_can_be_made_and_kept(net, jets, more_jets, tmp_path):
    jets, more_jets = jets[:60], more_jets[:50]
    kept = fit_reference(jets, net)
    kept.save(tmp_path / "reference.npz")
    again = ReferenceStatistics.load(tmp_path / "reference.npz")
    assert again.n == len(jets)
    value = fpnd(more_jets, again, net)
    assert value.value == pytest.approx(fpnd(more_jets, jets, net).value, rel=1e-6)
    assert math.isnan(value.floor)
    assert "only statistics" in value.protocol["floor"]
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    for name in ("broken.npz", "absent.npz"):
        with pytest.raises(DataError, match="fit_reference"):
            ReferenceStatistics.load(tmp_path / name)


def test_published_files_are_read_by_their_names(net, tmp_path):
    weights = dict(net.state_dict())
    for i in range(3):
        weights |= {f"edge_convs.{i}.nn.{k}": v for k, v in net.edge_nets[i].state_dict().items()}
    torch.save(weights, tmp_path / "pnet_state_dict.pt")
    np.savetxt(tmp_path / "g_mu.txt", np.arange(256))
    np.savetxt(tmp_path / "g_sigma.txt", np.eye(256))
    loaded, statistics = load_published(tmp_path, "g")
    x = torch.randn(1, 30, 3)
    assert torch.equal(loaded.eval()(x), net(x))
    assert statistics.mean[-1] == 255
    with pytest.raises(DataError, match="q_mu"):
        load_published(tmp_path, "q")


def test_one_particle_is_refused(net, jets):
    with pytest.raises(ConfigError, match="particles=1"):
        fpnd(jets, jets, net, particles=1)
