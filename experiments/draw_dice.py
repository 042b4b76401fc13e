"""Draw the Dice of every site, alone and with `flames`, from the table of the quick comparison.

usage: python experiments/draw_dice.py [--table experiments/quick-dice.csv]
    [--out docs/images/dice.svg]

One row a site: `local`, `flames`, `uniform` (one model of all modalities, each site alike) and
`central` (images in one place), personalised models. The last row is the mean over sites.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

HERE = Path(__file__).parent
MEAN = "mean over sites"
SITES = (
    ("us", "Ultrasound", {"us-breast": "breast", "us-ovary": "ovary"}),
    (
        "mr",
        "MR",
        {f"mr-brain-{name}": f"brain, {name.upper()}" for name in ("cs", "du", "fg", "ht")}
        | {"mr-limb": "limb"},
    ),
    ("ct", "CT", {"ct-limb": "limb", "ct-lung": "lung"}),
    ("all", "", {MEAN: MEAN}),
)
SHOWN = {
    "local": "alone",
    "flames": "flames",
    "uniform": "one model for all modalities",
    "central": "images in one place",
}
DRAWN = ("uniform", "central", "local", "flames")
"""From the lowest mark to the uppermost."""

LEFT, RIGHT, TOP, ROW, GAP = 210, 850, 92, 26, 14
HIGHEST = 0.8

STYLE = """
.page{fill:#ffffff;stroke:#d5dae0}.ink{fill:#1b2430}.soft{fill:#54606e}
.grid{stroke:#e3e7ec}.link{stroke-width:3;stroke-opacity:.45}
.us{stroke:#0072b2}.mr{stroke:#b34700}.ct{stroke:#007a59}.all{stroke:#1b2430}
.fus{fill:#0072b2}.fmr{fill:#b34700}.fct{fill:#007a59}.fall{fill:#1b2430}
.hollow{fill:#ffffff;stroke-width:2}.cross{stroke:#8a95a1;stroke-width:2;fill:none}
@media (prefers-color-scheme:dark){
.page{fill:#14191f;stroke:#39424d}.ink{fill:#eef2f6}.soft{fill:#a9b4c0}
.grid{stroke:#2a323b}.us{stroke:#56b4e9}.mr{stroke:#f0924c}.ct{stroke:#3fc79a}.all{stroke:#eef2f6}
.fus{fill:#56b4e9}.fmr{fill:#f0924c}.fct{fill:#3fc79a}.fall{fill:#eef2f6}
.hollow{fill:#14191f}.cross{stroke:#7d8995}
}
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", type=Path, default=HERE / "quick-dice.csv")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs/images/dice.svg")
    given = parser.parse_args()
    given.out.write_text(drawing(given.table), encoding="utf-8")


def drawing(table: Path) -> str:
    """Return the figure of a table of scores as SVG."""
    dice = personal_dice(table)
    parts, y = [], TOP
    for kind, modality, sites in SITES:
        if modality:
            parts.append(text("ink", 30, y + 4, modality, 'font-weight="600"'))
        for site, label in sites.items():
            anchor = 'text-anchor="end"'
            weight = f'{anchor} font-weight="600"' if site == MEAN else anchor
            parts.append(text("ink", LEFT - 22, y + 4, label, weight))
            parts.append(row(kind, y, {name: dice[name, site] for name in SHOWN}))
            y += ROW
        y += GAP
    bottom = y - GAP - ROW // 2
    height = bottom + 56
    grid = []
    for tenths in range(0, round(HIGHEST * 10) + 1, 2):
        x = place(tenths / 10)
        grid.append(f'<path class="grid" d="M{x} {TOP - 16}V{bottom}"/>')
        grid.append(text("soft", x, bottom + 18, f"{tenths / 10:g}", 'text-anchor="middle"'))
    title = "Dice of every site, alone and with flames"
    means = ", ".join(f"{SHOWN[name]} {dice[name, MEAN]:.3f}" for name in SHOWN)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 880 {height}" role="img" '
            'aria-labelledby="t d" font-size="13" font-family="system-ui, -apple-system, '
            "'Segoe UI', Roboto, Helvetica, Arial, sans-serif\">",
            f'<title id="t">{title}</title>',
            f'<desc id="d">Nine sites. Mean over sites: {means}.</desc>',
            f"<style>{STYLE}</style>",
            f'<rect class="page" x=".5" y=".5" width="879" height="{height - 1}" rx="12"/>',
            *grid,
            legend(),
            *parts,
            text("soft", (LEFT + RIGHT) / 2, bottom + 40, "Dice", 'text-anchor="middle"'),
            "</svg>",
            "",
        ]
    )


def personal_dice(table: Path) -> dict[tuple[str, str], float]:
    """Return ``{(strategy, site): mean Dice}`` of the sites' own models."""
    with table.open(encoding="utf-8", newline="") as file:
        return {
            (score["strategy"], score["site"]): float(score["mean"])
            for score in csv.DictReader(file)
            if score["measure"] == "dice" and score["model"] == "personal"
        }


def row(kind: str, y: float, dice: dict[str, float]) -> str:
    """Return the marks of one site, with a line from training alone to `flames`."""
    alone, together = place(dice["local"]), place(dice["flames"])
    line = f'<path class="link {kind}" d="M{alone} {y}H{together}"/>'
    return line + "".join(mark(name, kind, place(dice[name]), y) for name in DRAWN)


def mark(strategy: str, kind: str, x: float, y: float) -> str:
    """Return one strategy's mark."""
    if strategy == "flames":
        return f'<circle class="f{kind}" cx="{x}" cy="{y}" r="4.5"/>'
    if strategy == "local":
        return f'<circle class="hollow {kind}" cx="{x}" cy="{y}" r="6.5"/>'
    if strategy == "uniform":
        return f'<path class="cross" d="M{x - 4:g} {y - 4}l8 8m0-8l-8 8"/>'
    return f'<path class="cross" d="M{x} {y - 7}v14"/>'


def legend() -> str:
    """Return what each mark stands for."""
    parts, x = [], LEFT
    for name, width in zip(SHOWN, (90, 100, 230, 0), strict=True):
        parts += [mark(name, "all", x, 34), text("ink", x + 14, 38, SHOWN[name])]
        x += width
    return "".join(parts)


def text(kind: str, x: float, y: float, words: str, more: str = "") -> str:
    """Return one line of text."""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" {more}>{words}</text>'


def place(dice: float) -> float:
    """Return where a Dice lies, in pixels from the left."""
    return round(LEFT + dice / HIGHEST * (RIGHT - LEFT), 1)


if __name__ == "__main__":
    main()
