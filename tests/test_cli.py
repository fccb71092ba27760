"""The command line: what it prints, what it refuses, and its exit codes."""

from __future__ import annotations

import errno
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sdekit as sk
from sdekit import problems
from sdekit.cli import COMMANDS, choices, main
from sdekit.cli.catalogue import orders
from sdekit.cli.command import parser_of
from sdekit.cli.formula import readable
from sdekit.steppers import registry
from sdekit.verify.claims import declared_order

LONG = {"study", "report", "train", "bench"}  # commands whose examples take more than seconds
EXAMPLES = [(name, line) for name, command in COMMANDS.items() for line, _ in command.examples]
EXAMPLES_RUN = [line for name, line in EXAMPLES if name not in LONG]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys):
    """``run(line)``: exit code, standard output and standard error of one command line."""

    def call(line: str) -> tuple[int, str, str]:
        code = main(shlex.split(line))
        return code, *capsys.readouterr()

    return call


def plain(text: str, width: int = 79) -> None:
    assert "\x1b" not in text
    long = [line for line in text.splitlines() if len(line) > width]
    assert not long, long


# --- help -------------------------------------------------------------------------------------------


def test_help_names_every_command_and_the_exit_codes(run):
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    plain(out)
    assert all(re.search(rf"^ +{name} ", out, re.M) for name in COMMANDS)
    assert "exit codes" in out
    assert run("")[1] == out


def test_version(run):
    assert run("--version") == (0, f"sdekit {sk.__version__}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_has_an_example(name, run):
    code, out, _ = run(f"{name} --help")
    assert code == 0
    plain(out)
    examples = out.split("examples:\n")[1]
    assert re.search(rf"^  sdekit {name}\b", examples, re.M)


@pytest.mark.parametrize("line", [line for _, line in EXAMPLES])
def test_examples_parse(line):
    assert line.split()[1] in parser_of(COMMANDS.values()).parse_args(shlex.split(line)[1:]).command


@pytest.mark.parametrize("line", EXAMPLES_RUN)
def test_quick_examples_run(line, run):
    code, out, err = run(line.removeprefix("sdekit "))
    assert (code, err) == (0, "")
    assert out
    plain(out)


# --- list and show ----------------------------------------------------------------------------------


def test_list_holds_every_name(run):
    code, out, _ = run("list")
    assert code == 0
    names = {line.split()[0] for line in out.splitlines() if line.strip()}
    names |= {word.rstrip(",;.") for word in out.partition("Other names:")[2].partition("\n\n")[0].split()}
    assert {*sk.STEPPERS, *problems.PROBLEMS, *choices.processes(), *choices.grids(), *choices.data()} <= names


@pytest.mark.parametrize("name", [*sk.STEPPERS, *problems.PROBLEMS, *choices.processes(), *choices.grids()])
def test_every_name_has_a_page_whose_example_parses(name, run):
    code, out, err = run(f"show {name}")
    assert (code, err) == (0, "")
    assert out.startswith(f"{name}:")
    assert "\\frac" not in out
    example = re.search(r"^example: sdekit (.+)$", out, re.M)
    assert example, out
    parser_of(COMMANDS.values()).parse_args(shlex.split(example[1]))


def test_a_page_has_the_declared_facts(run):
    out = run("show DDIM")[1]
    assert "1 linear-additive, 1 additive" in out
    assert "song2021ddim" in out


def test_orders_by_class():
    assert orders({"linear-additive": 2.0, "additive": 1.5, "general": 1.5}) == "2l 1.5ag"
    assert orders({}) == "--"


@pytest.mark.parametrize(
    ("tex", "shown"),
    [
        (r"$\tfrac12 \beta_t\,dt$", "½ β_t dt"),
        (r"$\sqrt{2t}$", "√(2t)"),
        (r"$\sqrt{\frac{v_t}{v_s}}$", "√(v_t/v_s)"),
        (r"$\frac{1}{2r} D_{-1}$", "1/(2r) D_(-1)"),
        (r"$e^{-2h} x^2 \Sigma^\top$", "e^(-2h) x² Σᵀ"),
        (r"$e^{2h}$ costs $5", "e^(2h) costs $5"),
        (r"$\bar W$, $\unknown{x}$", "W\u0304, \\unknown{x}"),
    ],
)
def test_formulas_keep_their_meaning(tex, shown):
    assert readable(tex) == shown


# --- solve ------------------------------------------------------------------------------------------


def test_solve_keeps_the_solution(run):
    code, out, _ = run("solve vp-gaussian --steps 8 --samples 64 --seed 3 --save all --out kept/s.safetensors")
    assert code == 0
    assert "64 of 64 samples ended well" in out
    kept = sk.Solution.load("kept/s.safetensors")
    assert kept.xs.shape == (9, 64, 3)
    assert kept.provenance["stepper"] == "v-abm-4"
    assert kept.final.dtype == torch.float64


def test_solve_does_what_the_library_does(run):
    code, _, _ = run(
        "solve --process vp --data mixture --eta 1 --stepper ddim --steps 7 --samples 30 --out s.safetensors"
    )
    assert code == 0
    process, law = sk.VP(), problems.reverse.DATA["mixture"]()
    sde = sk.reverse_time(process, sk.exact_score(law, process), 1.0)
    x = process.prior((1,)).sample(30, seed=0)
    wanted = sk.solve(sde, x, sk.grids.log_snr(process, 7), "ddim", noise=0).final
    torch.testing.assert_close(sk.Solution.load("s.safetensors").final, wanted, rtol=0, atol=0)


def test_solve_reports_distances(run):
    assert "W2 to the exact law at t = 0 " in run("solve --process vp --steps 20 --samples 200")[1]
    out = run("solve --process vp --stepper dpmpp-2m --steps 20 --samples 200")[1]
    row = re.search(r"W2 to the exact law at t = 0.001 +([\d.]+) ± [\d.]+", out)
    assert row, out
    assert 0.0 < float(row[1]) < 0.5
    for name in ("by chance", "prior mismatch", "bias of stopping"):
        assert name in out


@pytest.mark.parametrize("process", choices.processes())
def test_solve_runs_every_process(process, run):
    code, out, err = run(f"solve --process {process} --data gaussian --steps 10 --samples 20 --start exact")
    assert (code, err) == (0, "")
    assert "20 of 20 samples ended well" in out
    assert run(f"solve --process {process} --forward --steps 3 --samples 5")[0] == 0


def test_solve_shares_the_path_with_the_exact_solution(run):
    errors = []
    for steps in (16, 256):
        out = run(f"solve gbm --stepper euler-maruyama --steps {steps} --samples 500")[1]
        errors.append(float(re.search(r"sample by sample +([\d.e-]+)", out)[1]))
    assert errors[1] < 0.5 * errors[0]  # ¼ at strong order ½


def test_solve_with_a_bad_result(run, monkeypatch):
    def broken(t, x):
        return torch.where(x[:, :1] > 0, float("nan"), 0.0) + x

    sde = sk.sde(broken, lambda t, x: x)
    gbm = problems.get("gbm")
    broken_problem = problems.Problem("gbm", "broken", "", sde, sk.Gaussian([0.0], 1.0), gbm.grid, path=gbm.path)
    monkeypatch.setitem(problems.PROBLEMS, "gbm", lambda: broken_problem)
    code, out, err = run("solve gbm --samples 100 --steps 4 --out s.safetensors")
    assert (code, err) == (1, "")
    assert re.search(r"\d+ of 100 samples ended well; \d+ non finite", out)
    assert not sk.Solution.load("s.safetensors").ok


# --- converge ---------------------------------------------------------------------------------------


def test_converge_agrees_with_the_declared_order(run):
    code, out, _ = run("converge vp-gaussian ddim heun exact-linear dpmpp-2m --steps 16,32,64,128")
    assert code == 0
    plain(out)
    assert re.findall(r"(agrees|exact)$", out, re.M) == ["agrees", "agrees", "exact", "agrees"]


def test_converge_in_json(run):
    code, out, _ = run("converge vp-gaussian heun --steps 8,16 --json")
    assert code == 0
    found = json.loads(out)
    assert found["kind"] == "w2"
    (heun,) = found["results"]
    assert heun["steps"] == [8, 16]
    assert heun["order"] is None
    assert heun["local_orders"][0] == pytest.approx(2.0, abs=0.05)


def test_converge_finds_a_false_claim(run, monkeypatch):
    from dataclasses import replace

    heun = sk.STEPPERS["heun"]
    monkeypatch.setattr(heun, "spec", replace(heun.spec, ode=3.0))
    code, out, _ = run("converge vp-gaussian heun --steps 16,32,64,128")
    assert code == 1
    assert "DISAGREES" in out


def test_declared_orders_by_problem():
    spec = registry.get("euler-maruyama").spec
    cases = [("vp-gaussian", {"eta": 1.0}), ("vp-mixture", {"eta": 1.0}), ("gbm", {}), ("vp-mixture", {})]
    found = [problems.get(name, **options) for name, options in cases]
    assert [p.noise_class for p in found[:3]] == ["linear-additive", "additive", "diagonal"]
    assert [declared_order(spec, p, "strong")[1] for p in found] == [1.0, 1.0, 0.5, spec.ode]


# --- refusals ---------------------------------------------------------------------------------------

BAD = {
    "slove": r"no command 'slove': did you mean 'solve'\?",
    "show dddim": r"'dddim': did you mean 'ddim'\?",
    "list everything": r"no list 'everything'",
    "list --colour": r"unrecognized arguments: --colour",
    "solve vp-gausian": r"no problem 'vp-gausian': did you mean 'vp-gaussian'\?",
    "solve --process vq": r"no process 'vq': did you mean 'vp'\?",
    "solve --stepper dpmp-2m": r"no stepper 'dpmp-2m': did you mean 'dpmpp-2m'\?",
    "solve --eta 1 --stepper dpmpp-2m": r"eta = 1. Steppers that can: euler-maruyama.* ddim",
    "solve --eta -1": r"eta must be .* ≥ 0; got -1",
    "solve --eta much": r"--eta: wants a finite number; got 'much'",
    "solve --steps 0": r"--steps: wants a whole number ≥ 1; got '0'",
    "solve --samples none": r"--samples: wants a whole number",
    "solve --grid log-snrr": r"did you mean 'log_snr'\?",
    "solve --process brownian --t-min 2": r"t_min = 2, t_max = 1",
    "solve --dtype float16": r"no dtype 'float16'",
    "solve --device nonsense": r"'nonsense' cannot be used here",
    "solve --end nowhere": r"no end 'nowhere'",
    "solve --data mixture --score learned": r"No learned score of 'mixture' ships",
    "solve --score nosuchfile": r"no score or file 'nosuchfile'",
    "solve --forward --eta 1": r"--eta is for the way back",
    "solve vp-gaussian --grid karras": r"--grid cannot go with the problem 'vp-gaussian'",
    "solve gbm --eta 1": r"'gbm' does not take eta",
    "solve vp-mixture --out taken/below/s.safetensors": r"Cannot write taken/below/s.*: taken is not a folder",
    "solve vp-mixture --out .": r"Cannot write \.: it is a folder",
    "solve vp-mixture --out /dev/null": r"Cannot write /dev/null: it is no ordinary file",
    "converge vp-gaussian": r"required: STEPPER",
    "converge vp-gaussian nothing": r"no stepper 'nothing'",
    "converge vp-gaussian heun --eta 1": r"heun cannot solve this problem.* Steppers that can: euler-maruyama",
    "converge vp-mixture exact-linear": r"exact-linear needs an affine score",
    "converge vp-gaussian heun --steps 16,8": r"wants increasing step counts",
    "converge vp-gaussian heun --steps 16,x": r"wants increasing step counts",
    "converge vp-gaussian heun --kind strong": r"no exact answer for --kind strong; it has w2",
    "converge gbm euler-maruyama --steps 3,8": r"must divide 8; 3 does not",
    "train nothing": r"no task 'nothing'",
    "train mixture --out taken/weights": r"taken is not a folder",
    "bench --out taken/bench.json": r"taken is not a folder",
    "bench --dtype float16": r"float16",
    "report nowhere": r"nowhere",
    "study --problems vp-gausian": r"'vp-gausian': did you mean 'vp-gaussian'\?",
    "study --problems vp-gaussian --out taken": r"taken",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_refused_in_one_line(line, run, folder):
    (folder / "taken").write_text("an earlier result")
    code, out, err = run(line)
    assert (code, out) == (2, "")
    assert err.startswith("sdekit: error: ")
    assert err.count("\n") == 1
    assert re.search(BAD[line], err), err
    assert (folder / "taken").read_text() == "an earlier result"
    assert sorted(path.name for path in folder.iterdir()) == ["taken"]


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), 2, "error: x: No space left on device."),
        (ModuleNotFoundError("no", name="sklearn"), 2, "error: this needs the package 'sklearn', which is not"),
        (MemoryError(), 2, "error: not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, "error: not enough memory"),
        (sk.SdekitError("two\nlines"), 2, "error: two lines\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_what_goes_wrong_on_the_way(raised, code, told, run, monkeypatch):
    def fail(options):
        raise raised

    monkeypatch.setitem(COMMANDS, "list", sk.cli.catalogue.Command("list", "", "", (), lambda p: None, fail))
    found, out, err = run("list")
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert err.startswith(f"sdekit: {told}")


def test_a_bug_keeps_its_traceback(run, monkeypatch):
    def fail(options):
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(COMMANDS, "list", sk.cli.catalogue.Command("list", "", "", (), lambda p: None, fail))
    with pytest.raises(ZeroDivisionError):
        run("list")


# --- as a program -----------------------------------------------------------------------------------


def test_as_a_module_into_a_closed_pipe():
    """``sdekit list | head -0`` is quiet."""
    line = [sys.executable, "-m", "sdekit", "list"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        program.stdout.close()
        assert program.stderr.read() == ""
    assert program.returncode == 141


def test_as_a_program_where_only_ascii_prints():
    line = [str(Path(sys.executable).with_name("sdekit")), "show", "ddim"]
    done = subprocess.run(line, capture_output=True, text=True, env={"PYTHONIOENCODING": "ascii"}, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ddim: DDIM: first order in ?/?")
