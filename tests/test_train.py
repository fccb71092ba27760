"""Training, its files, and the weights that ship."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import sdekit as sk
from sdekit import data, nets
from sdekit.metrics import energy_distance
from sdekit.nets import Architecture, Denoiser
from sdekit.score import convert
from sdekit.train import RECIPES, _Job, describe, load_score, train

TINY = {
    "mixture": replace(RECIPES["mixture"], architecture=Architecture("mlp", (2,), 8, 1, dropout=0.2), batch=16),
    "digits": replace(RECIPES["digits"], architecture=Architecture("unet", (1, 8, 8), 8, 1, dropout=0.2), batch=4),
}
STEPS = 9


def tensors_of(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def tiny(path: Path, task: str = "mixture", **options: object) -> None:
    train(task, path, **{"steps": STEPS, "recipe": TINY[task], **options})  # type: ignore[arg-type]


def stop_at(step: int, stop: Callable[[], None]) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == step:
            stop()

    return progress


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    tiny(path)
    return path


# --- data


def test_digits_are_split_for_good() -> None:
    digits = data.digits()
    assert digits.sha256 == "ce195e508a2d054052ccfd28729dded28d6d9f66d0810c66b819d4c0e685e3cd"
    assert digits.train.shape == (1437, 1, 8, 8)
    assert digits.held_out.shape == (360, 1, 8, 8)
    assert digits.train.dtype == torch.float32
    assert digits.train.min() == -1.0
    assert digits.train.max() == 1.0
    counts = torch.stack([digits.train_labels.bincount(), 4 * digits.held_out_labels.bincount()])
    assert (counts[0] - counts[1]).abs().max() <= 5  # every digit in proportion


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(sk.SdekitError, match=r"sdekit\[report\]"):
        data.digits()


def test_the_mixture_is_fixed() -> None:
    law = data.nine_component_mixture()
    assert law.event_shape == (2,)
    assert data.fingerprint(law.weights)[:16] == "6aef8eb2484d8c1d"
    assert law.weights.min() > 0.02
    total = torch.stack(
        [w * (c.covariance + torch.outer(c.mean, c.mean)) for w, c in zip(law.weights, law.components, strict=True)]
    )
    torch.testing.assert_close(total.sum(0), law.covariance + torch.outer(law.mean, law.mean))


def test_fingerprints_tell_shapes_and_types_apart() -> None:
    x = torch.arange(6.0)
    prints = {data.fingerprint(y) for y in (x, x.reshape(2, 3), x.double(), x + 1e-6)}
    assert len(prints) == 4
    assert data.fingerprint(x.reshape(2, 3).mT) == data.fingerprint(x.reshape(2, 3).mT.contiguous())


# --- networks


@pytest.mark.parametrize("process", [sk.VP(), sk.EDM(), sk.Flow()], ids=lambda p: type(p).__name__)
def test_a_new_network_is_the_optimal_denoiser_of_a_gaussian(process: sk.VP) -> None:
    r"""F = 0 leaves the preconditioning, which is $E[x_0 \mid x_t]$ of N(μ, s² I)."""
    mean = torch.linspace(-1.0, 1.0, 64, dtype=torch.float64).reshape(1, 8, 8)
    law = sk.Gaussian(mean, 0.49)
    net = Denoiser(RECIPES["digits"].architecture, process.schedule, mean.float(), 0.7)
    t = torch.tensor([0.01, 0.3, 0.9], dtype=torch.float64)
    x = torch.cat([process.marginal(law, float(s)).sample(1, seed=1) for s in t])
    truth = convert(sk.exact_score(law, process)(t, x), t, x, process, "score", "sample")
    torch.testing.assert_close(net(x, t), truth, rtol=0.0, atol=2e-7)  # μ is kept in float32


@pytest.mark.parametrize("task", ["digits", "mixture"])
def test_one_network_serves_every_schedule(task: str) -> None:
    """At equal log-SNR, D(α z) is the same for every process."""
    vp, edm = sk.VP(), sk.EDM()
    t = torch.tensor([0.05, 0.3, 0.7], dtype=torch.float64)
    u = edm.schedule.time_at(vp.schedule.lam(t))
    shape = RECIPES[task].architecture.event_shape
    x = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (_, on_vp), (_, on_edm) = load_score(task, vp), load_score(task, edm)
    alpha = vp.schedule.alpha(t).reshape(-1, *(1,) * len(shape))
    torch.testing.assert_close(on_vp.net(alpha * x, t), on_edm.net(x, u), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "process",
    [sk.OU(theta=1.0, mu=2.0, sigma=1.0), sk.OU(theta=torch.tensor([[1.0, 0.0], [0.3, 1.0]]))],
    ids=["mu", "matrix"],
)
def test_processes_that_no_network_serves(process: sk.OU) -> None:
    with pytest.raises(sk.SdekitError, match="no shift"):
        load_score("mixture", process)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "mpl"},
        {"width": 0},
        {"width": 12},
        {"event_shape": (1, 7, 8)},
        {"event_shape": (64,)},
        {"dropout": 1.0},
    ],
    ids=str,
)
def test_architectures_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(sk.SdekitError):
        replace(RECIPES["digits"].architecture, **wrong)  # type: ignore[arg-type]


# --- training


@pytest.mark.parametrize("task", ["digits", "mixture"])
def test_resumed_is_uninterrupted(task: str, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    tiny(whole, task)
    for step in (3, 7):
        with pytest.raises(KeyboardInterrupt):
            tiny(parts, task, checkpoint_every=0.0, progress=stop_at(step, interrupt))
    assert not parts.exists()
    tiny(parts, task)
    assert describe(parts).held_out_loss == describe(whole).held_out_loss
    expected = tensors_of(whole)
    assert all(torch.equal(value, expected[name]) for name, value in tensors_of(parts).items())
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["parts.safetensors", "whole.safetensors"]


_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, "tests")
import torch, test_train
torch.set_num_threads(1)
kill = test_train.stop_at(6, lambda: os.kill(os.getpid(), signal.SIGKILL))
test_train.tiny(Path(sys.argv[1]), checkpoint_every=0.0, progress=kill)
"""


@pytest.mark.slow
def test_kill_minus_nine(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "killed.safetensors"
    root = Path(__file__).parent.parent
    child = subprocess.run([sys.executable, "-c", _KILLED, str(path)], cwd=root, timeout=120, check=False)
    assert child.returncode == -signal.SIGKILL
    assert not path.exists()
    tiny(path)
    expected = tensors_of(finished)
    assert all(torch.equal(value, expected[name]) for name, value in tensors_of(path).items())


def test_minutes_stop_and_go_on(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.safetensors"
    tiny(path, minutes=1e-9)
    assert describe(path).steps == 1
    tiny(path)
    assert describe(path).steps == STEPS
    expected = tensors_of(finished)
    assert all(torch.equal(value, expected[name]) for name, value in tensors_of(path).items())


def test_training_depends_on_the_seed_and_leaves_torch_alone(finished: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    tiny(tmp_path / "other.safetensors", seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(*(tensors_of(p)["network.entry.bias"] for p in (finished, tmp_path / "other.safetensors")))


def test_progress_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny(tmp_path / "quiet.safetensors")
    assert capsys.readouterr() == ("", "")
    tiny(tmp_path / "bar.safetensors", progress=True)
    out, err = capsys.readouterr()
    assert not out
    assert "held-out loss" in err


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(KeyboardInterrupt):
        tiny(path, progress=stop_at(2, interrupt))
    with pytest.raises(sk.SdekitError, match="another training"):
        tiny(path, seed=5)


def test_training_errors_come_first(tmp_path: Path) -> None:
    with pytest.raises(sk.SdekitError, match="'digits'"):
        train("digit")
    with pytest.raises(sk.SdekitError, match="steps ≥ 1"):
        tiny(tmp_path / "w.safetensors", steps=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(sk.SdekitError, match="Cannot write"):
        tiny(tmp_path / "file" / "w.safetensors", progress=stop_at(1, interrupt))


# --- files


def test_files_that_are_not_weights(finished: Path, tmp_path: Path) -> None:
    content, path = finished.read_bytes(), tmp_path / "bad.safetensors"
    with pytest.raises(sk.SdekitError, match="'digits'"):
        load_score("digis")
    for bad in (b"", content[:-1], content[:100], content[: len(content) // 2], b"\x80\x04]\x94.", bytes(1000)):
        path.write_bytes(bad)
        with pytest.raises(sk.SdekitError, match=r"bad\.safetensors"):
            load_score(path)
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(sk.SdekitError, match="Cannot read"):
        load_score(path)
    save_file({"a": torch.zeros(3)}, path, {"format": "something-else"})
    with pytest.raises(sk.SdekitError, match="another kind"):
        load_score(path)
    with pytest.raises(sk.SdekitError):
        load_score(tmp_path)


def test_files_with_damaged_contents(finished: Path, tmp_path: Path) -> None:
    path, tensors, meta = tmp_path / "bad.safetensors", tensors_of(finished), metadata_of(finished)
    name = "network.entry.weight"
    nan = {**tensors, name: torch.full_like(tensors[name], float("nan"))}
    wide = {**tensors, name: torch.zeros(5, 5)}
    missing = {k: v for k, v in tensors.items() if k != name}
    huge = json.dumps({**json.loads(meta["architecture"]), "width": 10**9})
    for those, said in (
        (nan, meta),
        (wide, meta),
        (missing, meta),
        (tensors, {**meta, "architecture": huge}),
        (tensors, {**meta, "architecture": "[]"}),
        (tensors, {**meta, "process": json.dumps({"name": "NoSuch"})}),
        (tensors, {**meta, "process": json.dumps({"name": "VP", "beta_max": "x"})}),
        (tensors, {**meta, "data_std": "NaN"}),
        (tensors, {**meta, "prediction": '"epsilon"'}),
        (tensors, {**meta, "steps": "{"}),
        (tensors, {"format": nets.FORMAT}),
    ):
        save_file(those, path, said)
        with pytest.raises(sk.SdekitError, match="is damaged"):
            load_score(path)
    save_file(tensors, path, {k: v for k, v in meta.items() if k != "seed"})
    with pytest.raises(sk.SdekitError, match="seed"):
        describe(path)


def test_without_safetensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for call in (lambda: load_score("digits"), lambda: train("mixture")):
        with pytest.raises(sk.SdekitError, match=r"sdekit\[io\]"):
            call()


# --- what ships


@pytest.mark.parametrize("task", ["digits", "mixture"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shipped_scores_are_finite_and_independent_of_the_batch(task: str, dtype: torch.dtype) -> None:
    process, score = load_score(task)
    x = torch.randn(6, *RECIPES[task].architecture.event_shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    for t in (process.t_min, 0.3 * process.t_max, process.t_max):
        state = process.schedule.sigma(t) * x
        values = score(t, state)
        assert values.dtype == dtype
        assert torch.isfinite(values).all()
        scale = 1e-5 / process.schedule.sigma(t) ** 2
        torch.testing.assert_close(score(t, state[2:3]), values[2:3], rtol=1e-4, atol=scale)


def test_shipped_weights_say_how_they_were_made() -> None:
    for task, origin in (("digits", data.source("digits")), ("mixture", data.source("mixture"))):
        trained, recipe = describe(task), RECIPES[task]
        assert (trained.task, trained.seed, trained.steps) == (task, 0, recipe.steps)
        assert (trained.process, trained.architecture) == (recipe.process, recipe.architecture)
        assert trained.data_sha256 == origin.sha256
        assert trained.parameters <= 500_000
        assert trained.path.stat().st_size < 2e6
        assert trained.command == f"sdekit train {task} --steps {recipe.steps} --seed 0"
        assert trained.seconds < 600.0


def loss_of(task: str, predict: Callable[[Tensor, Tensor], Tensor]) -> float:
    """The held-out loss of any denoiser, at the levels and noises at which that of a training is taken."""
    return _Job(task, RECIPES[task], data.source(task), steps=1, seed=0).held_out_loss(predict)


def denoiser_of(law: sk.Gaussian | sk.GaussianMixture, process: sk.VP) -> Callable[[Tensor, Tensor], Tensor]:
    score = sk.exact_score(law, process)

    def predict(x: Tensor, t: Tensor) -> Tensor:
        return convert(score(t.double(), x.double()), t.double(), x.double(), process, "score", "sample").float()

    return predict


def test_the_shipped_mixture_is_close_to_the_exact_score() -> None:
    """No denoiser is better than the exact one; the learned one is within 0.5 per cent, a Gaussian is far off."""
    law, process = data.nine_component_mixture(), RECIPES["mixture"].process
    exact = loss_of("mixture", denoiser_of(law, process))
    gaussian = loss_of("mixture", denoiser_of(sk.Gaussian(law.mean, law.covariance), process))
    learned = describe("mixture").held_out_loss
    assert learned == pytest.approx(loss_of("mixture", load_score("mixture")[1].net), rel=1e-4)
    assert exact < learned < 1.005 * exact
    assert gaussian > 1.3 * exact


def test_the_shipped_digits_predict_digits_that_they_never_saw() -> None:
    """The loss is what the file says, and far below that of the best Gaussian."""
    digits, process = data.digits(), RECIPES["digits"].process
    flat = digits.train.flatten(1).double()
    covariance = flat.mT.cov() + 1e-6 * torch.eye(64, dtype=torch.float64)
    gaussian = loss_of("digits", denoiser_of(sk.Gaussian(flat.mean(0).reshape(1, 8, 8), covariance), process))
    learned = describe("digits").held_out_loss
    assert learned == pytest.approx(loss_of("digits", load_score("digits")[1].net), rel=1e-4)
    assert learned < 0.8 * gaussian


@pytest.mark.slow
def test_samples_of_the_shipped_digits_are_digits(digits_sampled: Tensor) -> None:
    """At 20 evaluations: as close to held-out digits as training digits are, and not copies of them.

    Seeds are fixed. The squared energy distance of real against real is in [0.7, 1.5] times its median in 50 splits.
    """
    digits = data.digits()
    generator = torch.Generator().manual_seed(0)
    splits = [digits.train[torch.randperm(1437, generator=generator)[:360]] for _ in range(25)]
    floor = torch.tensor([energy_distance(s, digits.held_out) ** 2 for s in splits]).median()
    assert energy_distance(digits_sampled, digits.held_out) ** 2 < 1.6 * floor
    assert energy_distance(digits_sampled.mT, digits.held_out) ** 2 > 10.0 * floor  # the negative control
    near = nearest(digits_sampled, digits.train).median()
    assert near > 0.9 * nearest(digits.held_out, digits.train).median()
    assert near < 1.3 * nearest(digits.held_out, digits.train).median()


def nearest(x: Tensor, to: Tensor) -> Tensor:
    return torch.cdist(x.flatten(1), to.flatten(1)).amin(1)


@pytest.fixture(scope="module")
def digits_sampled() -> Tensor:
    process, score = load_score("digits")
    x = process.prior((1, 8, 8)).sample(360, seed=0).float()
    grid = sk.grids.karras(process, 20)
    return sk.solve(sk.probability_flow(process, score), x, grid, "dpmpp-2m").check().final
