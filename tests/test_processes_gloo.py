"""A sample does not depend on the company it keeps: batch, order, chunks, and processes that share the work."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch import distributed as dist

import sdekit as sk

VP = sk.VP()
LAW = sk.GaussianMixture([0.3, 0.7], [[-0.8], [0.6]], [0.09, 0.04])
REVERSE = sk.reverse_time(VP, sk.exact_score(LAW, VP))
GAUSSIAN = sk.reverse_time(VP, sk.exact_score(sk.Gaussian([0.5], 0.25), VP))
GRID = sk.grids.log_snr(VP, 12)
WELL = sk.sde(lambda t, x: x - x * x * x, lambda t, x: 0.5 + 0.1 * x, noise_type="diagonal")
TIMES = torch.linspace(0.0, 1.0, 9, dtype=torch.float64)
BATCH, SEED = 12, 5


def start(paths: Sequence[int]) -> Tensor:
    return VP.prior((1,)).sample(seed=SEED, paths=paths)


def default(paths: Sequence[int], numbered: bool) -> Tensor:
    return sk.solve(REVERSE, start(paths), steps=10, noise=SEED, paths=paths if numbered else None).final


def corrected(paths: Sequence[int], numbered: bool) -> Tensor:
    options = {"noise": SEED, "paths": paths if numbered else None, "end": "exact-linear"}
    return sk.solve(GAUSSIAN, start(paths), GRID, "predictor-corrector", **options).final


def seeded(paths: Sequence[int], numbered: bool) -> Tensor:
    seeds = [100 + p for p in paths] if numbered else list(range(100, 100 + len(paths)))
    return sk.solve(WELL, start(paths), TIMES, "sri1w1", paths=seeds).final


def on_a_path(paths: Sequence[int], numbered: bool) -> Tensor:
    options = {"paths": paths if numbered else None, "levy": "space-time"}
    path = sk.BrownianGrid((len(paths), 1), 0.0, 1.0, 64, seed=SEED, **options)
    return sk.solve(WELL, start(paths), TIMES, "sri1w1", noise=path).final


RUNS: dict[str, Callable[[Sequence[int], bool], Tensor]] = {
    run.__name__: run for run in (default, corrected, seeded, on_a_path)
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_batch_order_and_chunks_change_no_bit(run: Callable[[Sequence[int], bool], Tensor]) -> None:
    whole = run(range(BATCH), True)
    alone = torch.cat([run([p], True) for p in range(BATCH)])
    assert torch.equal(alone, whole)
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(0)).tolist()
    assert torch.equal(run(order, True), whole[order])
    for size in (1, 5, 7):
        chunks = [run(range(i, min(i + size, BATCH)), True) for i in range(0, BATCH, size)]
        assert torch.equal(torch.cat(chunks), whole)
    forgotten = torch.cat([run(range(i, i + 6), False) for i in (0, 6)])
    assert torch.equal(forgotten[:6], whole[:6])
    assert not torch.equal(forgotten, whole)


def work(rank: int, ranks: int, folder: str) -> None:
    """Half of the batch; rank 0 gathers and writes what all have, with the path numbers and without."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
    share = range(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
    gathered = {}
    for name, run in RUNS.items():
        for numbered in (True, False):
            mine = run(share, numbered)
            parts = [torch.empty_like(mine) for _ in range(ranks)]
            dist.all_gather(parts, mine)
            gathered[name, numbered] = torch.cat(parts)
    if rank == 0:
        torch.save(gathered, f"{folder}/gathered.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="torch without gloo")
def test_two_processes_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its half by paths=; without, the second repeats the noise of the first, and that shows."""
    if Path("/sys/class/net/lo").exists():
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=work, args=(rank, 2, str(tmp_path)), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60.0)
    assert [process.exitcode for process in processes] == [0, 0]
    gathered = torch.load(tmp_path / "gathered.pt")
    for name, run in RUNS.items():
        whole = run(range(BATCH), True)
        assert torch.equal(gathered[name, True], whole), name
        assert not torch.equal(gathered[name, False], whole), name
