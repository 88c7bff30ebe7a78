"""The trainer: precisions, stages, averages, monitor, faults in the numbers, memory."""

from __future__ import annotations

import json
import sys
import time
import types

import pytest
import torch
from training_toys import Game, Regressor, fit, make_config, make_events

from sparsegen.data import EventsSource
from sparsegen.errors import ConfigError, DataError, MissingExtraError, SparsegenError
from sparsegen.models.base import FitStage, Optimizers
from sparsegen.training import Trainer
from sparsegen.training.checkpoint import read_checkpoint
from sparsegen.training.folder import RunFolder
from sparsegen.training.state import derived_seed


def rows(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def regressor() -> Regressor:
    torch.manual_seed(0)
    return Regressor()


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


# Precision


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("64-true", torch.float64)])
def test_true_precisions_hold_everywhere(run, precision, dtype):
    seen = []

    class Watching(Game):
        def step(self, events, optimizers, generator):
            scalars = super().step(events, optimizers, generator)
            seen.extend([events.coords.dtype, events.features.dtype, *(s.dtype for s in scalars.values())])
            return scalars

    model = Watching()
    assert fit(run, model, make_config(precision=precision, ema=0.9)).status == "done"
    assert set(seen) == {dtype}
    assert {t.dtype for t in model.state_dict().values()} == {dtype}
    assert torch.get_default_dtype() == torch.float32


def test_bfloat16_runs_inside_networks_only_and_allows_gradient_penalties(run):
    inside, outside = [], []

    class Watching(Regressor):
        def step(self, events, optimizers, generator):
            outside.extend([events.coords.dtype, self.net(events).dtype])
            return super().step(events, optimizers, generator)

    model = Watching()
    model.net.layers[0].register_forward_hook(lambda module, args, out: inside.append(out.dtype))
    assert fit(run, model, make_config(precision="bf16-mixed")).status == "done"
    assert set(inside) == {torch.bfloat16}
    assert set(outside) == {torch.float32}
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32}
    assert fit(run.with_name("game"), Game(), make_config(precision="bf16-mixed")).status == "done"


# The loop


def test_training_equals_a_bare_loop_over_the_same_batches(run):
    """Fabric, logs, monitor and checkpoints change no bit of the result."""
    config = make_config(epochs=3, lr=0.01)
    model = regressor()
    fit(run, model, config)
    bare = regressor()
    optimizers = Optimizers({"model": torch.optim.Adam(bare.parameters(), lr=0.01)})
    order = derived_seed(config.training.seed, "order", 0) % 2**32
    for epoch in range(3):
        for batch in EventsSource(make_events()).batches(16, shuffle=True, seed=order, epoch=epoch, drop_last=True):
            bare.step(batch, optimizers, torch.Generator())
    for name, value in model.state_dict().items():
        assert torch.equal(value, bare.state_dict()[name]), name


def test_loss_falls_and_rows_hold_means_norms_and_position(run):
    fit(run, regressor(), make_config(epochs=20, lr=0.03))
    logged = rows(run)
    assert [row["step"] for row in logged] == list(range(5, 121, 5))
    assert logged[-1]["epoch"] == 20
    assert logged[-1]["loss"] < 0.3 * logged[0]["loss"]
    assert all(row["grad_norm/model"] > 0 and row["events_per_second"] > 0 for row in logged)


def test_stages_run_in_order_and_take_their_shares(run):
    fit(run, Game(), make_config(epochs=3, log_every=1))
    order = [row["stage"] for row in rows(run)]
    assert order == ["count"] + ["play"] * 12 + ["measure"] + ["finish"] * 6


def test_fits_see_every_event_and_averaged_weights(run):
    seen = {}

    class Looking(Game):
        def count(self, batches, generator):
            seen["events"] = sum(len(b) for b in batches())
            return super().count(batches, generator)

        def measure(self, batches, generator):
            seen["fit"] = self.generator.linear.weight.detach().clone()
            return super().measure(batches, generator)

        def step(self, events, optimizers, generator):
            out = super().step(events, optimizers, generator)
            if not hasattr(self, "kept"):
                self.kept = []
            self.kept.append(self.generator.linear.weight.detach().clone())
            return out

    model = Looking()
    start = model.generator.linear.weight.detach().clone()
    fit(run, model, make_config(epochs=3, batch=17, ema=0.5), make_events(90))
    average = start
    for t, weight in enumerate(model.kept[:10], 1):
        decay = min(0.5, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * weight
    assert seen["events"] == 90
    torch.testing.assert_close(seen["fit"], average)


def test_learning_rates_and_betas_come_from_the_model(run):
    fit(run, Game(), make_config(lr=0.01))
    state, _ = read_checkpoint(RunFolder(run).checkpoints.paths()[0])
    groups = {name: o["param_groups"][0] for name, o in state["optimizers"].items()}
    assert groups["critic"]["lr"] == 0.02
    assert groups["generator"]["lr"] == 0.01
    assert tuple(groups["critic"]["betas"]) == (0.5, 0.9)


def test_the_model_is_left_plain_with_averaged_weights(run):
    model = Game()
    fit(run, model, make_config(ema=0.9))
    state, _ = read_checkpoint(RunFolder(run).checkpoints.paths()[0])
    assert type(model.critic).__name__ == "HitNet"
    assert not model.training
    assert torch.equal(model.generator.linear.weight, state["average"]["generator.linear.weight"])
    assert not torch.equal(model.generator.linear.weight, state["model"]["generator.linear.weight"])
    assert torch.equal(model.critic.layers[0].weight, state["model"]["critic.layers.0.weight"])


def test_a_finished_run_is_not_repeated_and_gives_its_weights(run):
    first = Game()
    fit(run, first, make_config(ema=0.9))
    before = (run / "metrics.jsonl").read_bytes()

    class Untouchable(Game):
        def step(self, events, optimizers, generator):
            raise AssertionError("trained again")

    second = Untouchable()
    result = fit(run, second, make_config(ema=0.9))
    assert (result.status, result.step) == ("done", 12)
    assert (run / "metrics.jsonl").read_bytes() == before
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_a_damaged_newest_checkpoint_is_set_aside_and_the_run_goes_on(run):
    fit(run, Game(), make_config(max_steps=12))
    folder = RunFolder(run)
    newest = folder.checkpoints.paths()[0]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    folder.write_status("running")
    with pytest.warns(RuntimeWarning, match="does not match its SHA-256; the file is damaged; taking the checkpoint"):
        result = fit(run, Game(), make_config(max_steps=12))
    assert (result.status, result.step) == ("done", 12)
    assert newest.with_name(newest.name + ".damaged").exists()
    assert read_checkpoint(newest)[1]["step"] == 12


def test_a_model_of_several_batches_a_step_gets_them_as_one_and_spends_no_more_data(run):
    sizes = []

    class Hungry(Regressor):
        batches_per_step = 3

        def step(self, events, optimizers, generator):
            sizes.append(len(events))
            return super().step(events, optimizers, generator)

    assert fit(run, Hungry(), make_config(epochs=2, batch=8)).step == 8
    assert sizes == [24] * 8


def test_max_steps_stands_instead_of_epochs(run):
    assert fit(run, regressor(), make_config(max_steps=17, epochs=1)).step == 17


# The monitor


def test_the_monitor_waits_for_fits_and_sees_a_collapse(run):
    class Collapsed(Game):
        def make(self, counts, generator):
            events = super().make(counts, generator)
            return events.replace(coords=events.coords * 1e-6)

    fit(run, Collapsed(), make_config(epochs=4))
    for row in rows(run):
        watched = [name for name in row if name.startswith("monitor/")]
        assert bool(watched) == (row["stage"] == "finish")
        if watched:
            assert row["monitor/hits"] == 1
            assert row["monitor/spread_x"] < 1e-5
            assert row["monitor/spread_energy"] > 0.01


def test_speed_counts_steps_and_not_samples_fits_or_checkpoints(run):
    class Slow(Game):
        def sample(self, *args, **options):
            time.sleep(0.2)
            return super().sample(*args, **options)

        def measure(self, batches, generator):
            time.sleep(0.2)
            return super().measure(batches, generator)

    fit(run, Slow(), make_config(epochs=4, log_every=3))
    rates = [row["events_per_second"] for row in rows(run) if "events_per_second" in row]
    assert min(rates[1:]) > 3 * 16 / 0.2


# Not finite


class Poisoned(Game):
    """Its loss is not finite at some calls of ``step``."""

    bad: tuple[int, ...] = (9,)
    calls = 0

    def step(self, events, optimizers, generator):
        self.calls += 1
        if self.calls in self.bad:
            events = events.replace(features=events.features.index_fill(0, torch.tensor([0]), float("nan")))
        return super().step(events, optimizers, generator)


def test_a_loss_that_is_not_finite_stops_the_run_with_a_dump(run):
    result = fit(run, Poisoned(), make_config(epochs=4))
    assert (result.status, result.step, result.exit_code) == ("diverged", 8, 3)
    assert "critic: loss nan" in result.message
    status = RunFolder(run).read_status()
    assert (status["status"], status["step"]) == ("diverged", 8)
    dump = json.loads((run / "diverged-step-000000008-rank-0.json").read_text())
    assert dump["step"] == 8
    assert len(dump["events"]) == 16
    assert dump["losses"]["critic"] == "nan"
    assert dump["parameters_not_finite"] == []
    again = fit(run, Game(), make_config(epochs=4))
    assert (again.status, again.message) == ("diverged", result.message)


def test_a_batch_with_nan_is_named_in_the_dump(run):
    events = make_events()
    events = events.replace(
        features=events.features.index_fill(0, torch.tensor([20]), float("nan")), ids=events.ids + 100
    )
    result = fit(run, Game(), make_config(), events)
    assert result.status == "diverged"
    (dump,) = run.glob("diverged-*.json")
    assert json.loads(dump.read_text())["events_not_finite"] == [int(events.batch[20]) + 100]


def test_skip_leaves_the_steps_out_and_counts_them(run):
    result = fit(run, Poisoned(), make_config(epochs=4, on_nonfinite="skip"))
    assert (result.status, result.step) == ("done", 24)
    assert result.skipped == 1
    assert rows(run)[-1]["skipped"] == 1
    state, _ = read_checkpoint(RunFolder(run).checkpoints.paths()[0])
    assert all(bool(t.isfinite().all()) for t in state["model"].values())


def test_skipping_forever_is_divergence(run):
    class Hopeless(Poisoned):
        bad = tuple(range(1000))

    result = fit(run, Hopeless(), make_config(epochs=40, on_nonfinite="skip"))
    assert result.status == "diverged"
    assert "100 steps in a row" in result.message


def test_rollback_goes_back_and_on_and_is_counted(run):
    result = fit(run, Poisoned(), make_config(epochs=4, on_nonfinite="rollback"))
    assert (result.status, result.step, result.rollbacks) == ("done", 24, 1)
    steps = [row["step"] for row in rows(run)]
    assert steps == sorted(steps)
    assert RunFolder(run).read_status()["rollbacks"] == 1


def test_rollbacks_end(run):
    class Hopeless(Poisoned):
        bad = tuple(range(9, 1000))

    result = fit(run, Hopeless(), make_config(epochs=4, on_nonfinite="rollback"))
    assert (result.status, result.rollbacks) == ("diverged", 3)


def test_a_huge_finite_loss_is_caught_by_its_gradient(run):
    class Huge(Regressor):
        def step(self, events, optimizers, generator):
            loss = (self.net(events) * 1e38).square().mean()
            optimizers.minimise("model", loss)
            return {"loss": loss.detach()}

    assert fit(run, Huge(), make_config()).status == "diverged"


# Errors that name their remedy


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_out_of_memory_names_batch_event_and_remedy(run, error):
    class Hungry(Regressor):
        def step(self, events, optimizers, generator):
            raise error

    with pytest.raises(SparsegenError) as raised:
        fit(run, Hungry(), make_config(), make_events(96, hits=6))
    text = str(raised.value)
    assert "at step 0: a batch of 16 events with" in text
    assert "with 6 hits" in text
    assert "lower training.batch" in text
    status = RunFolder(run).read_status()
    assert status["status"] == "failed"
    assert status["message"] == text


def test_other_data_in_the_same_folder_are_refused(run):
    fit(run, Game(), make_config())
    with pytest.raises(ConfigError, match="was trained on toy"):
        fit(run, Game(), make_config(), make_events(seed=1))


def test_a_checkpoint_of_another_model_is_refused_in_one_line(run):
    fit(run, Game(), make_config())
    with pytest.raises(ConfigError, match=r"does not fit the model: .*Missing key"):
        fit(run, regressor(), make_config())


def test_tensorboard_is_an_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sparsegen\[tensorboard\]'"):
        fit(run, Game(), make_config(tensorboard=True))
    seen = []

    class SummaryWriter:
        def __init__(self, folder):
            seen.append(folder)

        def add_scalar(self, name, value, step):
            seen.append((name, step))

        def close(self):
            seen.append("closed")

    board = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    assert fit(run, Game(), make_config(tensorboard=True)).status == "done"
    assert seen[0] == str(run / "tensorboard")
    assert ("generator", 12) in seen
    assert seen[-1] == "closed"


def test_a_terminal_gets_a_bar_and_a_job_does_not(run, monkeypatch, capsys):
    fit(run, Game(), make_config())
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.delenv("CI", raising=False)
    fit(run.with_name("bar"), Game(), make_config())
    assert "12/12" in capsys.readouterr().err


def test_a_batch_larger_than_the_data_is_the_whole_data(run):
    assert fit(run, regressor(), make_config(batch=500, epochs=3)).step == 3


def test_an_unknown_child_in_optimized_is_named(run):
    class Wrong(Regressor):
        @property
        def optimized(self):
            return {"model": ("nett",)}

    with pytest.raises(ConfigError, match="'nett', which is no child module"):
        fit(run, Wrong(), make_config())


def test_a_source_that_gives_too_few_batches_is_an_error(run):
    class Short(EventsSource):
        def batches(self, size, **options):
            yield from list(super().batches(size, **options))[:-1]

    with pytest.raises(DataError, match="epoch 0 ended at step 5, not 6"):
        Trainer(run, make_config()).fit(regressor(), Short(make_events(), "toy"))


def test_a_model_of_fits_alone_trains_without_steps(run):
    class Counting(Game):
        @property
        def stages(self):
            return (FitStage(self.count, "count"),)

    model = Counting()
    result = fit(run, model, make_config())
    assert (result.status, result.step) == ("done", 0)
    assert float(model.mean_hits) == pytest.approx(float(make_events().counts.float().mean()))
