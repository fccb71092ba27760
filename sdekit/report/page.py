"""The page: sections in order, images inside, provenance at the end."""

from __future__ import annotations

import base64
from importlib.util import find_spec
from pathlib import Path

from sdekit.errors import SdekitError
from sdekit.report import (
    accuracy,
    convergence,
    digits,
    grids,
    langevin,
    latents,
    limits,
    marginals,
    peers,
    refinement,
    rewind,
)
from sdekit.report.markup import escape, table, template
from sdekit.report.reading import Section, Study
from sdekit.solution import write_whole
from sdekit.study.settings import PROBLEMS, QUICK_PROBLEMS, SOLVERS

FIGURES, REPORT = "figures", "report.html"

_SECTIONS = (
    marginals.section,
    convergence.section,
    rewind.section,
    limits.section,
    digits.section,
    latents.section,
    peers.section,
    langevin.section,
    grids.section,
    accuracy.section,
    refinement.section,
)


def check_installed() -> None:
    """Refuse early what would fail late.

    Raises:
        SdekitError: matplotlib, scikit-learn or safetensors is missing.
    """
    missing = [name for name in ("matplotlib", "sklearn", "safetensors") if find_spec(name) is None]
    if missing:
        raise SdekitError(f"The study and its report need {', '.join(missing)}: pip install 'sdekit[report]'.")


def build(folder: str | Path) -> Path:
    """Write ``figures/*.png`` and ``report.html`` from a study's records and arrays; also of an unfinished study.

    Args:
        folder: What ``sdekit study`` wrote.

    Returns:
        The path of the report.

    Raises:
        SdekitError: no study there, a missing array, a missing package, or a folder that cannot be written.
    """
    check_installed()
    folder = Path(folder)
    study = Study.read(folder)
    sections = [section for make in _SECTIONS if (section := make(study)) is not None]
    if not sections:
        raise SdekitError(f"{folder} has no results yet: run sdekit study --out {folder}.")
    for section in sections:
        for name, content in section.figures.items():
            write_whole(folder / FIGURES / f"{name}.png", content)
    write_whole(folder / REPORT, _page(study, sections).encode())
    return folder / REPORT


def _page(study: Study, sections: list[Section]) -> str:
    cards = "".join(
        f"<li><b>{card.number}</b><span>{card.text}</span></li>" for section in sections for card in section.cards
    )
    body = "".join(
        f'<section id="{section.name}"><h2>{escape(section.title)}</h2>\n{_with_images(section)}</section>\n'
        for section in sections
    )
    links = " · ".join(f'<a href="#{section.name}">{escape(section.title)}</a>' for section in sections)
    return template(
        "page.html",
        style=template("style.css"),
        cards=cards,
        links=links,
        sections=body,
        provenance=_provenance(study),
        command=escape(command(study)),
        records=f"{len(study.records):,}",
    )


def _with_images(section: Section) -> str:
    body = section.body
    for name, content in section.figures.items():
        body = body.replace(f"{{{{{name}}}}}", "data:image/png;base64," + base64.b64encode(content).decode())
    return body


def command(study: Study) -> str:
    """What makes this study again."""
    settings, words = study.settings, ["sdekit study"]
    problems = QUICK_PROBLEMS if settings["quick"] else PROBLEMS
    for option, default in (("problems", problems), ("solvers", SOLVERS), ("steps", None)):
        chosen = settings[option]
        if chosen is not None and tuple(chosen) != default:
            words.append(f"--{option} {','.join(map(str, chosen))}")
    words += [f"--device {settings['device']}"] * (settings["device"] != "cpu")
    words += [f"--seed {settings['seed']}"] * (settings["seed"] != 0)
    words += ["--quick"] * bool(settings["quick"])
    return " ".join(words)


def _provenance(study: Study) -> str:
    """Settings and versions."""
    settings = {**study.settings, **study.settings["versions"]}
    del settings["versions"]
    rows = []
    for name, value in settings.items():
        words = ", ".join(map(str, value)) if isinstance(value, list) else value
        rows.append([escape(name), f'<span class="words">{escape("default" if words is None else words)}</span>'])
    return table(["setting", "value"], rows, "What this study was made with.", numbers_from=9)
