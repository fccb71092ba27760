"""The documentation runs, prints what it shows, and leaves out no public name."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import pkgutil
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sphinx.pycode import ModuleAnalyzer

import sdekit
from sdekit.steppers import registry

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = [ROOT / "README.md"] if (ROOT / "README.md").exists() else []
PAGES = [*README, *sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)]
RUN = [page for page in PAGES if "```python" in page.read_text()]

# A block of code, and the block that shows what it prints, if one follows with nothing between.
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n*^```text\n(?P<shown>.*?)^```$)?", re.M | re.S)
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?(?!\w)")


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


# --- the code on the pages ------------------------------------------------------------------------


def unit(number: str) -> float:
    """One in the last printed digit."""
    mantissa, _, exponent = number.partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def mismatch(shown: str, printed: str) -> str | None:
    """Where two texts differ; floats may, by one in the last printed digit."""
    words = [re.sub(r"\s+", " ", NUMBER.sub("#", text)).strip() for text in (shown, printed)]
    if words[0] != words[1]:
        return f"the page shows\n{shown}\nand the code prints\n{printed}"
    for a, b in zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True):
        whole = not set(".e") & set(a + b)
        if a != b and (whole or abs(float(a) - float(b)) > 1.01 * max(unit(a), unit(b))):
            return f"the page shows {a} where the code prints {b}, in\n{printed}"
    return None


@pytest.mark.parametrize("page", RUN, ids=relative)
def test_a_page_runs_and_prints_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "STEPPERS", dict(registry.STEPPERS))  # a page may register a stepper of its own
    text, names = page.read_text(), {"__name__": "page"}
    for block in BLOCK.finditer(text):
        line, out = text.count("\n", 0, block.start()) + 1, io.StringIO()
        # The empty lines put a traceback's line numbers where they are on the page.
        code = compile("\n" * line + block["code"], str(page), "exec")
        with contextlib.redirect_stdout(out):
            exec(code, names)
        difference = mismatch(block["shown"] or "", out.getvalue())
        assert difference is None, f"{relative(page)}:{line}: {difference}"


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("order 2.001 ± 0.000", "order 2.002 ± 0.000", True),
        ("order 2.001", "order 2.003", False),
        ("1.2e-03\n", "1.3e-03", True),
        ("1.2e-03", "1.2e-04", False),
        ("20 steps", "21 steps", False),
        ("dpmpp-2m True", "dpmpp-2m False", False),
        ("", "0.5", False),
    ],
)
def test_a_wrong_output_is_seen(shown, printed, same):
    assert (mismatch(shown, printed) is None) == same


def test_the_pages_hold_the_blocks_that_are_promised():
    counts = {relative(page): len(BLOCK.findall(page.read_text())) for page in RUN}
    for page in RUN:
        assert counts[relative(page)] == page.read_text().count("```python"), f"{relative(page)}: a block is not closed"
    assert {"docs/getting-started.md", "docs/bring-your-network.md", "docs/add-a-stepper.md"} <= counts.keys()


# --- the reference --------------------------------------------------------------------------------

DIRECTIVE = re.compile(r"^\.\. auto(module|class|function|data):: ([\w.]+)(?:\(\))?\n((?:   :.*\n)*)", re.M)


def resolve(name: str) -> Any:
    """The module, class, function or value of this dotted name; where a package hides a submodule, what hides it."""
    path, *parts = name.split(".")
    found: Any = importlib.import_module(path)
    for part in parts:
        path += f".{part}"
        try:
            found = getattr(found, part)
        except AttributeError:
            found = importlib.import_module(path)
    return found


def has_words(module: str, name: str) -> bool:
    """Whether autodoc finds something to say of a module's member; it leaves out the others."""
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value) or inspect.isroutine(value):
        return bool(value.__doc__)
    home = getattr(value, "__module__", module)
    return any(("", name) in ModuleAnalyzer.for_module(m).find_attr_docs() for m in {module, home})


def members(module: str, options: str) -> list[str]:
    """What ``automodule`` lists: the members named, or ``__all__``, or what the module defines."""
    wanted = re.search(r":members:(.*)", options)
    if wanted is None:
        return []
    if wanted[1].strip():
        return [name.strip() for name in wanted[1].split(",")]
    loaded = importlib.import_module(module)
    own = [n for n, v in vars(loaded).items() if not n.startswith("_") and getattr(v, "__module__", module) == module]
    listed = getattr(loaded, "__all__", own)
    return [name for name in listed if ":undoc-members:" in options or has_words(module, name)]


@cache
def documented() -> tuple[list[Any], set[str]]:
    """What the reference describes: the objects, and their names."""
    objects, names = [], set()
    for page in PAGES:
        for kind, name, options in DIRECTIVE.findall(page.read_text()):
            listed = [f"{name}.{m}" for m in members(name, options)] if kind == "module" else [name]
            names.update([name, *listed])
            objects += map(resolve, [name, *listed])
    return objects, names


def public() -> list[str]:
    """Every name in the ``__all__`` of sdekit and of its packages, and every function of its public modules."""
    packages = ["sdekit", *(m.name for m in pkgutil.walk_packages(sdekit.__path__, "sdekit.") if m.ispkg)]
    names = [f"{p}.{n}" for p in packages for n in getattr(importlib.import_module(p), "__all__", ()) if n[0] != "_"]
    for name in list(names):
        found = resolve(name)
        if inspect.ismodule(found) and "__all__" not in vars(found):
            names += [f"{found.__name__}.{n}" for n, v in vars(found).items() if _is_own(found.__name__, n, v)]
    return names


def _is_own(module: str, name: str, value: Any) -> bool:
    return not name.startswith("_") and inspect.isroutine(value) and value.__module__ == module


@pytest.mark.parametrize("name", public())
def test_a_public_name_is_in_the_reference(name):
    found = resolve(name)
    objects, names = documented()
    simple = isinstance(found, str | int | float | None)  # equal ones may be one object
    assert name in names or (not simple and any(found is each for each in objects)), (
        f"{name} is public, but no page of docs/reference describes it (or its docstring is missing)"
    )


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_what_a_page_calls_sk_is_exported(page):
    used = set(re.findall(r"\bsk\.([a-zA-Z]\w*)", page.read_text()))
    assert used <= set(sdekit.__all__), f"not in sdekit.__all__: {sorted(used - set(sdekit.__all__))}"


def test_citations_are_in_the_bibliography():
    keys = set(re.findall(r"@\w+\{(\w+),", (DOCS / "references.bib").read_text()))
    cited = {key for stepper in sdekit.STEPPERS.values() for key in stepper.spec.references}
    for page in PAGES:
        cited.update(
            k.strip() for group in re.findall(r"\{cite(?::\w+)?\}`(.+?)`", page.read_text()) for k in group.split(",")
        )
    for source in (ROOT / "sdekit").rglob("*.py"):
        cited.update(re.findall(r"(?<!\w)\[([a-z]+(?:19|20)\d\d\w*)\]", source.read_text()))
    assert cited
    assert cited <= keys, f"not in docs/references.bib: {sorted(cited - keys)}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{relative(page)} links to {target}, which is not there"
