"""Tables for a paper: plain LaTeX, ``booktabs`` rules, nothing to install but that."""

from __future__ import annotations

from collections.abc import Sequence

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$",
    "<": "$<$", ">": "$>$", "–": "--", "α": r"$\alpha$", "\u202f": r"\,", "\u00a0": "~",
}  # fmt: skip


def latex_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, last_apart: bool = False
) -> str:
    """Return a table, the first column left, the others right; texts are escaped.

    Args:
        head: Column names.
        rows: Cells as text.
        caption: Said under the table.
        last_apart: Set the last row apart by a rule: a mean.

    >>> print(latex_table(["site", "Dice"], [["us_a", "0.5"]], caption="Scores"))
    \\begin{table}
    \\centering
    \\begin{tabular}{lr}
    \\toprule
    site & Dice \\\\
    \\midrule
    us\\_a & 0.5 \\\\
    \\bottomrule
    \\end{tabular}
    \\caption{Scores}
    \\end{table}
    <BLANKLINE>
    """
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        _line(head),
        r"\midrule",
    ]
    for number, row in enumerate(rows):
        if last_apart and number == len(rows) - 1:
            lines.append(r"\midrule")
        lines.append(_line(row))
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{escape(caption)}}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Return ``text`` with LaTeX's special characters made harmless."""
    return "".join(SPECIAL.get(letter, letter) for letter in text)


def _line(cells: Sequence[str]) -> str:
    return " & ".join(escape(cell) for cell in cells) + r" \\"
