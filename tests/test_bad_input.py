"""Bad input, one row a case: what it is, what it does, and what the message must say.

Every message shows the value and names the cure; every row leaves what was saved before untouched. To add a case, add a
row.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sdekit as sk
from sdekit import grids
from sdekit.typing import Time

X = torch.ones(3, 2, dtype=torch.float64)
GRID = [0.9, 0.5, 0.1]
VP = sk.VP()
SCORE = sk.exact_score(sk.Gaussian(torch.zeros(2, dtype=torch.float64), 1.0), VP)
MIXTURE = sk.exact_score(sk.GaussianMixture([0.5, 0.5], torch.eye(2), 1.0), VP)
FLOW, REVERSE = sk.probability_flow(VP, SCORE), sk.reverse_time(VP, SCORE)
MATRIX = sk.OU(torch.eye(2, dtype=torch.float64))


def drift(t: Time, x: Tensor) -> Tensor:
    return -x


def net(x: Tensor, t: Tensor) -> Tensor:
    return x


def solve(sde: Any = FLOW, x: Any = X, grid: Any = GRID, stepper: Any = None, **options: Any) -> sk.Solution:
    return sk.solve(sde, x, grid, stepper, **options)


def answering(value: Any) -> Any:
    """A flow whose score answers ``value(x)``."""
    return sk.probability_flow(VP, lambda t, x: value(x))


def with_nan(where: int = 1) -> Tensor:
    x = X.clone()
    x[where, 0] = math.nan
    return x


def written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def foreign(file: Path, **meta: str) -> Path:
    from safetensors.torch import save

    return written(file, save({"weight": torch.ones(2)}, meta))


def below_a_file(folder: Path) -> Path:
    return folder / "earlier" / "folder" / "new"


def on_a_full_disk(folder: Path) -> None:
    """Saving over an earlier result when the disk is full."""

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        solve().save(folder / "earlier")


def while_renaming(folder: Path) -> None:
    def refused(source: object, target: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", refused)
        solve().save(folder / "earlier")


Case = tuple[str, Callable[[Path], object], str]

STATE: list[Case] = [
    ("integers", lambda _: solve(x=X.long()), r"floating-point tensor; got torch.int64.*x\.to\(torch\.float64\)"),
    ("no tensor", lambda _: solve(x=[[1.0, 2.0]]), r"floating-point tensor; got list"),
    ("no batch", lambda _: solve(x=X[0]), r"shape \(batch, \*event\); got \(2,\).*x\[:, None\]"),
    ("empty batch", lambda _: solve(x=X[:0]), r"got \(0, 2\)"),
    ("NaN in the state", lambda _: solve(x=with_nan()), r"NaN or Inf in 1 of 3 samples"),
    ("Inf in the state", lambda _: solve(x=X / 0), r"NaN or Inf in 3 of 3 samples"),
    ("another event", lambda _: solve(x=torch.ones(3, 4)), r"shape \(3, 4\).*event shape E = \(2,\)"),
    ("no SDE", lambda _: solve(sde=SCORE), r"needs an SDE: .*reverse_time.*; got ExactScore"),
    ("nothing", lambda _: solve(sde=None), r"needs an SDE: .*; got NoneType"),
]
TIMES: list[Case] = [
    ("unsorted", lambda _: solve(grid=[0.9, 0.1, 0.5]), r"turns at index 1 \(…, 0\.1, 0\.5, …\).*Sort"),
    ("words", lambda _: solve(grid=["a", "b"]), r"sequence of numbers, as from sk\.grids; got \['a', 'b'\]"),
    ("one time", lambda _: solve(grid=[0.9]), r"at least two times.*\(1,\)"),
    ("two dimensions", lambda _: solve(grid=torch.ones(2, 2)), r"one dimension; got shape \(2, 2\)"),
    ("NaN in the grid", lambda _: solve(grid=[0.9, math.nan]), r"finite times; got \[0\.9, nan\]"),
    ("a grid of no length", lambda _: solve(grid=[0.5, 0.5]), r"must run one way"),
    ("beyond the end", lambda _: solve(grid=[1.5, 0.1]), r"spans \[0\.1, 1\.5\]; VP lives on \[0, 1\]"),
    ("before the beginning", lambda _: solve(grid=[0.5, -0.1]), r"spans \[-0\.1, 0\.5\]"),
    (
        "no noise at zero",
        lambda _: solve(grid=[0.9, 0.0], stepper="ddim"),
        r"VP is singular at t = 0: .*t_min = 0\.001.*end='denoise'",
    ),
    (
        "no signal at one",
        lambda _: solve(sk.Flow(), grid=[0.5, 1.0], noise=0),
        r"Flow is singular at t = 1: .*t_max = 0\.999",
    ),
    (
        "no signal at the start",
        lambda _: solve(sk.probability_flow(sk.Cosine(), lambda t, x: -x), grid=[1.0, 0.5]),
        r"Cosine is singular at t = 1",
    ),
    (
        "forward SDE rewound",
        lambda _: solve(VP, grid=GRID, noise=0),
        r"cannot be solved from t = 0\.9 down to 0\.1.*reverse_time\(process, score\).*grid\.flip\(0\)",
    ),
    ("general SDE rewound", lambda _: solve(sk.sde(drift, drift), noise=0), r"down to 0\.1.*reverse_time"),
    ("reverse SDE forwards", lambda _: solve(REVERSE, grid=[0.1, 0.9], noise=0), r"rises from 0\.1 to 0\.9.*flip\(0\)"),
    ("grid and steps", lambda _: solve(steps=4), r"not both; got a grid and steps = 4"),
    ("no grid and no steps", lambda _: solve(grid=None), r"Give a grid \(see sk\.grids\), or steps=N.*steps=None"),
    ("steps of a general SDE", lambda _: solve(sk.sde(drift), grid=None, steps=3), r"Give a grid.*steps=3"),
    ("no steps", lambda _: grids.uniform(VP, 0), r"steps must be a whole number ≥ 1; got 0"),
    ("half a step", lambda _: solve(grid=None, steps=2.5), r"whole number ≥ 1; got 2\.5"),
    ("ends swapped", lambda _: grids.uniform(VP, 3, t_min=0.7, t_max=0.2), r"t_min = 0\.7, t_max = 0\.2"),
    ("an infinite end", lambda _: grids.uniform(sk.OU(), 3, t_max=math.inf), r"t_max = inf"),
    ("log-SNR at zero", lambda _: grids.log_snr(VP, 3, t_min=0.0), r"no finite value at t_min = 0.*0\.001 and 1"),
    ("log-SNR of a matrix", lambda _: grids.log_snr(MATRIX, 3), r"no schedule: use grids\.uniform"),
    ("rho of zero", lambda _: grids.karras(VP, 3, rho=0.0), r"rho must be positive; got 0"),
    ("a transition backwards", lambda _: VP.transition(0.5, 0.2), r"s = 0\.5, t = 0\.2.*reverse_time"),
    ("a transition too far", lambda _: VP.transition(0.5, 1.2), r"t ≤ 1; got s = 0\.5, t = 1\.2"),
    ("a marginal too far", lambda _: VP.marginal(SCORE.law, 1.2), r"t ≤ 1; got s = 0\.0, t = 1\.2"),
    ("a marginal of OU before time", lambda _: MATRIX.marginal(SCORE.law, -1.0), r"t = -1\.0"),
]
OPTIONS: list[Case] = [
    ("a way to save", lambda _: solve(save="finale"), r"no way to save 'finale': did you mean 'final'\?"),
    ("save outside", lambda _: solve(save=[0.5, 0.95]), r"save asks for \[0\.95\]; the grid spans \[0\.1, 0\.9\]"),
    ("save nothing", lambda _: solve(save=[]), r"save asks for no time; the grid spans"),
    ("an end", lambda _: solve(end="denoize"), r"no end 'denoize': did you mean 'denoise'\?"),
    (
        "denoising forwards",
        lambda _: solve(VP, grid=GRID[::-1], noise=0, end="denoise"),
        r"end='denoise' needs the reverse",
    ),
    (
        "denoising an encoding",
        lambda _: solve(grid=GRID[::-1], end="denoise"),
        r"end='denoise' needs .*decreasing grid",
    ),
    ("denoising a general SDE", lambda _: solve(sk.sde(drift), end="denoise"), r"end='denoise' needs the reverse"),
]
STEPPERS: list[Case] = [
    ("a misspelt stepper", lambda _: solve(stepper="dpmpp2m"), r"no stepper 'dpmpp2m': did you mean 'dpmpp-2m'\?"),
    ("capitals", lambda _: solve(stepper="Euler-Murayama"), r"did you mean 'euler-maruyama'\?"),
    ("no such stepper", lambda _: solve(stepper="qqq"), r"no stepper 'qqq': choose one of ancestral-ve, .*ddim, .*rk4"),
    ("a class", lambda _: solve(stepper=sk.DDIM), r"no stepper <class .*DDIM'>: choose one of"),
    (
        "dpmpp-2m on an SDE",
        lambda _: solve(REVERSE, stepper="dpmpp-2m", noise=0),
        r"dpmpp-2m cannot.*integrates eta = 0, and this problem has eta = 1.*Steppers that can: .*ddim",
    ),
    (
        "ddim at a large eta",
        lambda _: solve(sk.reverse_time(VP, SCORE, 1.5), stepper="ddim", noise=0),
        r"eta in \[0, 1\], and this problem has eta = 1\.5.*Steppers that can: euler-maruyama",
    ),
    (
        "rk4 on an SDE",
        lambda _: solve(VP, grid=GRID[::-1], stepper="rk4", noise=0),
        r"rk4 cannot.*additive noise.*euler-m",
    ),
    (
        "ddim without a reverse",
        lambda _: solve(VP, stepper="ddim", noise=0),
        r"ddim cannot.*reverse of a process with a schedule",
    ),
    (
        "ddim without a schedule",
        lambda _: solve(sk.probability_flow(MATRIX, drift), stepper="ddim"),
        r"ddim cannot.*reverse of a process with a schedule.*Steppers that can: .*heun",
    ),
    (
        "Stratonovich",
        lambda _: solve(sk.sde(drift, drift, "diagonal", "stratonovich"), stepper="euler-maruyama", noise=0),
        r"not a method of stratonovich calculus\. Steppers that can: euler-heun.*euler-maruyama takes sk\.to_ito",
    ),
    (
        "Ito",
        lambda _: solve(sk.sde(drift, drift), stepper="heun-strat", noise=0),
        r"not a method of ito calculus\. Steppers that can: euler-m.*heun-strat takes sk\.to_stratonovich\(sde\)",
    ),
    (
        "exact-linear on a mixture",
        lambda _: solve(sk.reverse_time(VP, MIXTURE), stepper="exact-linear", noise=0),
        r"affine score.*exact_score\(Gaussian\(\.\.\.\), process\).*ddim",
    ),
    (
        "exact-linear on anything",
        lambda _: solve(sk.sde(drift), stepper="exact-linear"),
        r"linear process.*got GeneralSDE.*euler-maruyama",
    ),
    (
        "exact-linear on half a matrix",
        lambda _: solve(
            sk.reverse_time(MATRIX, sk.exact_score(SCORE.law, MATRIX), 0.5), stepper="exact-linear", noise=0
        ),
        r"eta = 1 only; got 0\.5",
    ),
]
NOISE: list[Case] = [
    ("no noise", lambda _: solve(REVERSE), r"stochastic: give noise=seed \(an integer\), or a Brownian path"),
    ("a real seed", lambda _: solve(REVERSE, noise=0.5), r"noise must be a seed.*got float: 0\.5"),
    ("a tensor of noise", lambda _: solve(REVERSE, noise=X), r"noise must be a seed.*or a Brownian path; got Tensor"),
    ("too few paths", lambda _: solve(REVERSE, noise=0, paths=[1, 2]), r"2 entries for 3 samples: give one per sample"),
    ("real paths", lambda _: solve(REVERSE, noise=0, paths=[0.5, 1.0, 2.0]), r"whole numbers.*\(3,\) of torch\.float"),
    ("paths in a square", lambda _: solve(REVERSE, noise=0, paths=torch.ones(3, 1).long()), r"got shape \(3, 1\)"),
    (
        "paths of a path",
        lambda _: solve(REVERSE, noise=sk.BrownianGrid.on(GRID, (3, 2)), paths=[1, 2, 3]),
        r"a Brownian path has its own paths= argument",
    ),
    (
        "one noise for a batch",
        lambda _: solve(REVERSE, noise=sk.BrownianGrid.on(GRID, (1, 2))),
        r"has shape \(1, 2\); this problem needs \(3, 2\), a noise for every sample",
    ),
    (
        "a path on other times",
        lambda _: solve(REVERSE, noise=sk.BrownianGrid((3, 2), 0.0, 1.0, 3)),
        r"t = 0\.5 is no node of this path, which knows 4 times in \[0, 1\].*BrownianGrid\.on\(grid, shape\)",
    ),
    (
        "a path on another device",
        lambda _: solve(REVERSE, noise=sk.BrownianGrid.on(GRID, (3, 2), device="meta")),
        r"draws w of shape \(3, 2\) on meta; the state needs \(3, 2\) on cpu",
    ),
    ("a path of one time", lambda _: sk.BrownianGrid.on([0.5], (3, 2)), r"two strictly monotone times; got \[0\.5\]"),
    ("a path that stands still", lambda _: sk.BrownianGrid.on([0.5, 0.5], (3, 2)), r"strictly monotone"),
    ("paths of a BrownianGrid", lambda _: sk.BrownianGrid((3, 2), paths=[1]), r"1 entries for"),
    (
        "a short record",
        lambda _: sk.RecordedBrownian([0.0, 1.0], torch.ones(2, 3, 2)),
        r"2 times need 1 increments; got 2",
    ),
    (
        "an increment backwards",
        lambda _: sk.BrownianGrid((3, 2)).increment(0.5, 0.25),
        r"s ≤ t; got s = 0\.5, t = 0\.25",
    ),
]
DYNAMICS: list[Case] = [
    ("a noise type", lambda _: sk.sde(drift, drift, "diagonl"), r"no noise type 'diagonl': did you mean 'diagonal'\?"),  # type: ignore[arg-type]
    ("a calculus", lambda _: sk.sde(drift, drift, calculus="itô"), r"no calculus 'itô': did you mean 'ito'\?"),  # type: ignore[arg-type]
    (
        "a diffusion of another shape",
        lambda _: solve(sk.sde(drift, lambda t, x: x[:, :1], "diagonal"), grid=[0.0, 1.0], noise=0),
        r"diffusion returned shape \(3, 1\) for a state of shape \(3, 2\).*\(\*state, m\)",
    ),
    (
        "a drift of another shape",
        lambda _: solve(sk.sde(lambda t, x: x[0]), grid=[0.0, 1.0]),
        r"drift returned shape \(2,\).*state of shape \(3, 2\)",
    ),
    ("a drift that is a number", lambda _: solve(sk.sde(lambda t, x: 0.0), grid=[0.0, 1.0]), r"drift returned float"),  # type: ignore[arg-type, return-value]
    (
        "a drift on another device",
        lambda _: solve(sk.sde(lambda t, x: x.to("meta")), grid=[0.0, 1.0]),
        r"drift returned shape \(3, 2\) on meta for a state of .* on cpu",
    ),
    (
        "a drift that widens",
        lambda _: solve(sk.sde(lambda t, x: x.double()), X.float(), [0.0, 1.0]),
        r"drift returned torch\.float64 for a state of torch\.float32: return value\.to\(x\)",
    ),
    ("a negative eta", lambda _: sk.reverse_time(VP, SCORE, -0.5), r"eta must be a finite number ≥ 0; got -0\.5"),
    ("eta of NaN", lambda _: sk.reverse_time(VP, SCORE, math.nan), r"got nan"),
    ("a reverse of a reverse", lambda _: sk.reverse_time(REVERSE, SCORE), r"forward process or sk\.sde.*got Reverse"),  # type: ignore[arg-type]
    (
        "a reverse of Stratonovich",
        lambda _: sk.reverse_time(sk.sde(drift, drift, calculus="stratonovich"), SCORE),
        r"Stratonovich.*calculus='ito'",
    ),
    ("no score", lambda _: sk.reverse_time(VP, 3.0), r"callable \(t, x\) -> tensor; got 3\.0"),  # type: ignore[arg-type]
    ("a score of another shape", lambda _: solve(answering(lambda x: x[:, :1])), r"score returned shape \(3, 1\)"),
    ("a score that is a tuple", lambda _: solve(answering(lambda x: (x, x))), r"score returned tuple"),
    ("a score on another device", lambda _: solve(answering(lambda x: x.to("meta"))), r"score returned .* on meta"),
    (
        "a score of NaN",
        lambda _: solve(answering(lambda x: x * math.nan)).check(),
        r"3 non_finite of 3 samples, with v-abm-2 on 2 steps.*larger t_min.*NaN in the score",
    ),
    ("a prediction", lambda _: sk.score.from_model(net, VP, "eps"), r"no prediction 'eps': did you mean 'epsilon'\?"),  # type: ignore[arg-type]
    (
        "a prediction without a schedule",
        lambda _: sk.score.from_model(net, MATRIX, "epsilon"),
        r"no schedule.*other than the score",
    ),
    ("a conversion", lambda _: sk.score.convert(X, 0.5, X, VP, "score", "noise"), r"no prediction 'noise'"),  # type: ignore[arg-type]
    ("an oblong theta", lambda _: sk.OU(torch.ones(2, 3)), r"theta must be square; got shape \(2, 3\)"),
    ("no stationary law", lambda _: sk.OU(theta=-0.5).stationary((2,)), r"theta has the rate -0\.5 ≤ 0"),
    ("no stationary law of Brownian motion", lambda _: sk.OU(torch.zeros(2)).stationary((2,)), r"rate 0 ≤ 0"),
    ("a negative beta", lambda _: sk.VP(beta_min=-1.0), r"β\(t\) ≥ 0 .*got beta_min = -1, beta_max = 20"),
    ("no beta", lambda _: sk.SubVP(0.0, 0.0), r"β\(t\) ≥ 0 and not 0 throughout; got beta_min = 0"),
    (
        "sigma_min of zero",
        lambda _: sk.VE(sigma_min=0.0),
        r"0 < sigma_min < sigma_max; got sigma_min = 0, sigma_max = 50",
    ),
    ("sigmas swapped", lambda _: sk.VE(50.0, 0.01), r"got sigma_min = 50, sigma_max = 0\.01"),
    ("sigma_max of zero", lambda _: sk.EDM(sigma_max=0.0), r"sigma_max > 0; got sigma_max = 0"),
    ("a negative offset", lambda _: sk.Cosine(-0.1), r"offset ≥ 0; got offset = -0\.1"),
    ("Brownian motion that stands still", lambda _: sk.Brownian(noise=0.0), r"noise > 0; got noise = 0"),
    (
        "a theta of another event",
        lambda _: solve(sk.OU(torch.ones(5)), grid=[0.0, 1.0], noise=0),
        r"shape \(5,\) does not act on events \(2,\)",
    ),
    ("betas above one", lambda _: sk.DiscreteVP([0.1, 1.2]), r"betas must lie strictly between 0 and 1.*1\.2"),
    ("no betas", lambda _: sk.DiscreteVP([]), r"betas must lie"),
    ("sigmas that fall", lambda _: sk.DiscreteVE([1.0, 0.1]), r"positive and increasing.*\[1\.0, 0\.1\].*flip"),
]
FILES: list[Case] = [
    ("no such file", lambda folder: sk.Solution.load(folder / "missing"), r"Cannot read .*missing"),
    ("a folder", lambda folder: sk.Solution.load(folder), r"Cannot read "),
    ("noise for a file", lambda folder: sk.Solution.load(written(folder / "x", b"\x07" * 64)), r"Cannot read .*x"),
    ("an empty file", lambda folder: sk.Solution.load(written(folder / "x", b"")), r"Cannot read .*x"),
    (
        "half a file",
        lambda folder: sk.Solution.load(written(folder / "x", (folder / "earlier").read_bytes()[:-9])),
        r"Cannot read .*x",
    ),
    ("another safetensors file", lambda folder: sk.Solution.load(foreign(folder / "x")), r"another kind \(format None"),
    (
        "a format of the future",
        lambda folder: sk.Solution.load(foreign(folder / "x", format="sdekit-solution-9")),
        r"format 'sdekit-solution-9', wanted 'sdekit-solution-1'",
    ),
    (
        "a solution without its parts",
        lambda folder: sk.Solution.load(foreign(folder / "x", format="sdekit-solution-1")),
        r"Cannot read .*x",
    ),
    ("a folder below a file", lambda folder: solve().save(below_a_file(folder)), r"Cannot write .*earlier/folder/new"),
    ("no file name", lambda _: solve().save(""), r"Cannot write "),
    ("a folder for a file", lambda folder: solve().save(folder), r"Cannot write "),
    ("a full disk", on_a_full_disk, r"Cannot write .*earlier: No space left on device"),
    ("a file that may not be replaced", while_renaming, r"Cannot write .*earlier: Permission denied"),
]
TRAINED = sk.probability_flow(VP, sk.score.from_model(lambda x, t: x, VP, "epsilon", span=(0.2, 0.9)))
UNSCHEDULED = sk.reverse_time(MATRIX, sk.exact_score(SCORE.law, MATRIX))
SAMPLERS: list[Case] = [
    *(
        (
            f"{name} on {steps} steps",
            lambda _, name=name, steps=steps: solve(grid=GRID[: steps + 1], stepper=name),  # type: ignore[misc]
            rf"{name} looks back over {least} steps and cannot take {steps}: give {least} steps or more",
        )
        for name, least, steps in (("deis-3", 3, 2), ("unipc-4", 4, 2), ("v-ab-2", 2, 1), ("dpmpp-3m", 3, 2))
    ),
    (
        "an SA-Solver of four on two steps",
        lambda _: solve(REVERSE, grid=GRID[:3], stepper=sk.SASolver(4, 4), noise=0),
        r"sa-solver looks back over 4 steps and cannot take 2",
    ),
    ("an order", lambda _: sk.UniPC(7), r"UniPC has the orders \(1, 2, 3, 4\); got 7"),
    (
        "ddpm at another eta",
        lambda _: solve(sk.reverse_time(VP, SCORE, 0.5), stepper="ddpm", noise=0),
        r"integrates eta = 1, and this problem has eta = 0\.5.*Steppers that can: .*ddim, .*sde-dpmpp-2m",
    ),
    (
        "unipc on an SDE",
        lambda _: solve(REVERSE, stepper="unipc-2", noise=0),
        r"integrates eta = 0, and this problem has eta = 1.*Steppers that can: .*sde-dpmpp-2m",
    ),
    (
        "a sampler without a schedule",
        lambda _: solve(UNSCHEDULED, stepper="sde-dpmpp-2m", noise=0),
        r"needs the reverse of a process with a schedule.*Steppers that can: euler-maruyama",
    ),
    ("denoising without a schedule", lambda _: solve(UNSCHEDULED, end="denoise", noise=0), r"and OU\(.*\) has none"),
    ("an exact end forwards", lambda _: solve(VP, grid=GRID[::-1], noise=0, end="exact-linear"), r"needs the reverse"),
    (
        "an exact end of a mixture",
        lambda _: solve(sk.probability_flow(VP, MIXTURE), end="exact-linear"),
        r"needs an affine score, exact_score\(Gaussian.*Use end='denoise'",
    ),
    (
        "an exact end on a path without a seed",
        lambda _: solve(
            REVERSE,
            noise=sk.RecordedBrownian(GRID[::-1], torch.zeros(len(GRID) - 1, 3, 2, dtype=torch.float64)),
            end="exact-linear",
        ),
        r"RecordedBrownian has no seed.*noise=seed, a BrownianGrid or .*, or use end='denoise'",
    ),
    (
        "a network asked too high",
        lambda _: solve(TRAINED, grid=[0.95, 0.5]),
        r"t = 0\.95 \(σ = .*trained on \[0\.2, 0\.9\]",
    ),
    (
        "a network asked too low",
        lambda _: solve(TRAINED, grid=[0.9, 0.1, 0.05]),
        r"t = 0\.1 \(σ = 0\.3.*\(σ from 0\.584 to 1\): .*t_min = 0\.2.*end='denoise'",
    ),
    ("a network asked last too low", lambda _: solve(TRAINED, grid=[0.9, 0.1], stepper="heun"), r"asked at t = 0\.1"),
    ("a span swapped", lambda _: sk.score.from_model(net, VP, span=(0.9, 0.2)), r"first < last; got \(0\.9, 0\.2\)"),
]
CASES = [*STATE, *TIMES, *OPTIONS, *STEPPERS, *NOISE, *DYNAMICS, *FILES, *SAMPLERS]


@pytest.mark.parametrize(("provoke", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_bad_input(provoke: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier"
    solve().save(earlier)
    content = earlier.read_bytes()
    with pytest.raises(sk.SdekitError, match=f"(?s){message}"):
        provoke(tmp_path)
    assert earlier.read_bytes() == content
    assert sorted(p.name for p in tmp_path.iterdir()) in (["earlier"], ["earlier", "x"])


def test_rows_have_names_of_their_own() -> None:
    assert len({case[0] for case in CASES}) == len(CASES)
