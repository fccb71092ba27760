r"""LaTeX as it stands in docstrings, made readable in a terminal: ``\tfrac12 \sigma_t^2`` becomes ``½ σ_t²``.

Groups that lose their braces gain parentheses, and what is not known is left as it is, so that no formula changes its
meaning.
"""

from __future__ import annotations

import re

_NAMES = """
alpha α beta β gamma γ delta δ varepsilon ε epsilon ε zeta ζ eta η theta θ kappa κ lambda λ mu μ nu ν xi ξ pi π rho ρ
sigma σ tau τ phi φ varphi φ chi χ psi ψ omega ω Gamma Γ Delta Δ Theta Θ Lambda Λ Sigma Σ Phi Φ Psi Ψ Omega Ω
sum Σ int ∫ prod Π nabla ∇ partial ∂ infty ∞ cdot · times × pm ± le ≤ leq ≤ ge ≥ geq ≥ neq ≠ approx ≈ propto ∝ sim ~
mid | to → rightarrow → mapsto ↦ leftarrow ← in ∈ top ᵀ ell ℓ circ ∘ dots … ldots … cdots …
"""
_SIGNS = dict(zip(_NAMES.split()[::2], _NAMES.split()[1::2], strict=True)) | {"mathcal": ""}
_FUNCTIONS = ("log", "exp", "min", "max", "cos", "sin", "tan", "arctan", "cosh", "sinh", "tanh", "det", "erf")
_SIGNS |= {name: f"{name} " for name in _FUNCTIONS}
_SPACE = r"\\(?:[,;:! ]|(?:q?quad|displaystyle|limits)(?![a-zA-Z]))"
_SIZE = r"\\(?:[bB]igg?[lr]?|left|right)(?![a-z])\.?"
_FRACTIONS = {"12": "½", "13": "⅓", "14": "¼", "32": "3/2", "34": "¾"}
_RAISED = dict(zip("0123456789+-−=()nit", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿⁱᵗ", strict=True))
_GROUP = r"\{([^{}]*)\}"


def readable(text: str) -> str:
    """The formulas of a text, between one dollar sign or two, as Unicode."""
    shown = re.sub(r"\$\$\s*(.+?)\s*\$\$", lambda m: _display(_unicode(m[1])), text, flags=re.DOTALL)
    return re.sub(r"\$(.+?)\$", lambda m: _unicode(m[1]), shown, flags=re.DOTALL)


def _display(formula: str) -> str:
    """A formula set off, every line of it."""
    return "\n".join("    " + line.strip() for line in formula.splitlines())


def _unicode(tex: str) -> str:
    tex = re.sub(_SIZE, "", re.sub(_SPACE, " ", tex))
    tex = re.sub(r"\\[dt]?frac(\d)(\d)", lambda m: _FRACTIONS.get(m[1] + m[2], f"{m[1]}/{m[2]}"), tex)
    tex = re.sub(r"\\(?:text|mathrm|mathbf|mathbb|mathcal|operatorname\*?)\s*" + _GROUP, r"\1", tex)
    tex = re.sub(r"\\([a-zA-Z]+)", lambda m: _SIGNS.get(m[1], m[0]), tex)
    tex = tex.replace(r"\{", "⦃").replace(r"\}", "⦄").replace(r"\|", "‖")
    before = ""
    while before != tex:  # from the innermost group outwards
        before, tex = tex, _groups(tex)
    tex = tex.replace("⦃", "{").replace("⦄", "}").replace("&", "")
    return re.sub(r" (?=[)\],²³ᵀ_^])", "", re.sub(r" {2,}", " ", tex)).strip()


def _groups(tex: str) -> str:
    """Fractions, roots, accents, indices and exponents whose groups hold no other group."""
    tex = re.sub(r"\\[dt]?frac\s*" + _GROUP + r"\s*" + _GROUP, lambda m: f"{_one(m[1])}/{_one(m[2])} ", tex)
    tex = re.sub(r"\\sqrt\s*" + _GROUP, lambda m: "√" + _one(m[1]), tex)
    tex = re.sub(r"\\sqrt\s*(\w)", r"√\1", tex)
    tex = re.sub(r"\\(bar|hat|tilde)\s*(?:\{(\w)\}|(\w))", lambda m: (m[2] or m[3]) + _ACCENTS[m[1]], tex)
    tex = re.sub(r"\^(?:" + _GROUP + r"|(\w|ᵀ))", lambda m: _raised(m[1] if m[2] is None else m[2]), tex)
    return re.sub(r"_" + _GROUP, lambda m: "_" + (m[1] if m[1].isalnum() else f"({m[1]})"), tex)


_ACCENTS = {"bar": "\u0304", "hat": "\u0302", "tilde": "\u0303"}


def _one(group: str) -> str:
    """A group without its braces: in parentheses unless it is a number or one symbol with its indices."""
    group = group.strip()
    return group if re.fullmatch(r"\d+|\w(_\w+)?[²³]?", group) else f"({group})"


def _raised(exponent: str) -> str:
    if exponent == "ᵀ":
        return exponent
    if exponent and all(c in _RAISED for c in exponent):
        return "".join(_RAISED[c] for c in exponent)
    return "^" + (exponent if len(exponent) == 1 else f"({exponent})")
