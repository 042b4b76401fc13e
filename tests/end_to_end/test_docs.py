"""The README and the documents: commands exist, marked ones run, links resolve, keys are right."""

from __future__ import annotations

import json
import os
import re
import shlex
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flames.config import PROFILES, PlanConfig, RunConfig, SiteConfig, load_config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN_PAGES = [
    ROOT / "docs/how-to" / f"{name}.md"
    for name in ("prepare-a-store", "run-a-federation", "evaluate-elsewhere")
]
BLOCK = re.compile(
    r"^(?P<indent> *)(?:<!-- (?P<mark>[^>]+) -->\n *)?```(?P<kind>\w+)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
NEW = "(no default)"


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    kind: str
    mark: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Return the commands of a console or bash block."""
        if self.kind not in ("console", "bash"):
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.kind == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        return [line for line in lines if line and not line.startswith("#")]


def blocks(page: Path) -> Iterator[Block]:
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        indent = match["indent"]
        text = "".join(
            line.removeprefix(indent) for line in match["text"].splitlines(keepends=True)
        )
        yield Block(match["kind"], match["mark"] or "", text)


# --- commands ---------------------------------------------------------------------------------


def flames_commands() -> list[tuple[str, str]]:
    return [
        (page.relative_to(ROOT).as_posix(), command)
        for page in PAGES
        for block in blocks(page)
        for command in block.commands
        if command.startswith("flames ")
    ]


@pytest.mark.parametrize(("page", "command"), flames_commands())
def test_a_shown_command_is_understood(page: str, command: str) -> None:
    assert not parse(command), f"{page}: {command}"


@pytest.mark.parametrize(
    "command",
    [
        "flames train x.toml --out y",
        "flames run x.toml --out y --epochs 3",
        "flames run x.toml",
        "flames data make stores --cases few",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(command: str) -> None:
    assert parse(command)


@pytest.mark.parametrize("name", ["flames-server.service", "flames-site.service", "compose.yaml"])
def test_services_start_commands_that_exist_on_folders_they_may_write(name: str) -> None:
    text = (ROOT / "examples" / "consortium" / name).read_text(encoding="utf-8")
    commands = [json.loads(found) for found in re.findall(r"command:\s*(\[.*?\])", text, re.DOTALL)]
    commands += [shlex.split(found)[1:] for found in re.findall(r"^ExecStart=(.*)$", text, re.M)]
    assert len(commands) == (2 if name == "compose.yaml" else 1)
    for command in commands:
        assert not parse(shlex.join(["flames", *command]))
        for option in {"--kit", "--store"} & set(command):
            place = command[command.index(option) + 1]
            assert re.search(rf":{place}$|^ReadWritePaths=.*{place}", text, re.MULTILINE)


def parse(command: str) -> str:
    """Return what the command line would complain about, without running anything."""
    import typer

    from flames.cli.main import app

    name, *arguments = shlex.split(command)
    found: Any = typer.main.get_command(app)
    if arguments == ["--version"]:
        return ""
    try:
        while hasattr(found, "commands"):
            if not arguments or arguments[0] not in found.commands:
                return f"no subcommand {arguments[:1]}"
            name, found = arguments[0], found.commands[arguments[0]]
            arguments = arguments[1:]
        found.make_context(name, arguments)
    except Exception as error:
        # typer and click each have their own usage errors.
        return f"{type(error).__name__}: {error}"
    return ""


def test_the_doors_that_are_shown_exist() -> None:
    shown = {
        shlex.split(command)[0]
        for page in PAGES
        for block in blocks(page)
        for command in block.commands
        if not command.startswith(("flames ", "source "))
    }
    assert {"./demo", "./check", "scripts/setup"} <= shown
    for door in shown:
        assert os.access(ROOT / door, os.X_OK), f"{door} is shown and cannot be run"


# --- running ----------------------------------------------------------------------------------

SMALL = (
    "rounds=1",
    "training.local-steps=1",
    "training.batch-size=2",
    "data.image-size=64",
    "evaluation.resamples=100",
    "threads=1",
)


def test_runnable_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_sources(Path("downloads"))
    make_hospitals(Path("stores"))
    done = 0
    for page in RUN_PAGES:
        for block in blocks(page):
            if block.mark.startswith("file: "):
                Path(block.mark.removeprefix("file: ")).write_text(block.text, encoding="utf-8")
            if block.mark != "runnable":
                continue
            if block.kind == "python":
                exec(compile(block.text, str(page), "exec"), {})
            for command in block.commands:
                run(command, monkeypatch)
            done += 1
    assert done >= 10
    assert json.loads(Path("scores/elsewhere/summary.json").read_text(encoding="utf-8"))["scores"]
    assert Path("runs/first/report.html").exists()


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one shown command in this process, made small where it would take long."""
    from flames.cli.main import main

    arguments = shlex.split(command)
    if arguments[1] == "run":
        for pair in SMALL:
            arguments += ["--set", pair]
    if arguments[1:3] == ["data", "add"]:
        arguments += ["--workers", "1"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code in (0, None), command


def make_hospitals(folder: Path) -> None:
    from flames.data.synthetic.stores import make_store

    for site, organ in (("us-breast", "breast"), ("us-ovary", "ovary"), ("us-elsewhere", "breast")):
        make_store(folder / site, site=site, modality="US", organ=organ, seed=3, cases=12)


def make_sources(folder: Path) -> None:
    """Write a tiny source of each format, of noise with a square in it."""
    random = np.random.default_rng(4)
    for number in range(1, 7):
        for category in ("benign", "malignant"):
            image, mask = picture(random)
            stem = folder / "busi/Dataset_BUSI_with_GT" / category / f"{category} ({number})"
            save(stem.with_name(f"{stem.name}.png"), image)
            save(stem.with_name(f"{stem.name}_mask.png"), mask)
        image, mask = picture(random)
        save(folder / f"otu/OTU_2d/images/{number}.JPG", image)
        save(folder / f"otu/OTU_2d/annotations/{number}.PNG", mask)
        image, mask = picture(random)
        save(folder / f"own/scans/{number}.png", image)
        save(folder / f"own/outlines/{number}_seg.png", mask)
        patient = f"TCGA_{'CS' if number < 5 else 'DU'}_{number:04d}_19960101"
        for level in range(1, 4):
            image, mask = picture(random)
            place = folder / "lgg/kaggle_3m" / patient / f"{patient}_{level}"
            save(place.with_name(f"{place.name}.tif"), np.stack([image] * 3, axis=-1))
            save(place.with_name(f"{place.name}_mask.tif"), mask)
        volume = random.integers(0, 200, (12, 12, 3, 2), dtype=np.int16)
        label = np.zeros((12, 12, 3), np.uint8)
        label[3:6, 3:6, 1], label[6:8, 3:6, 1], label[9, 9, 1] = 1, 2, 3
        for name, array in (("imagesTr", volume), ("labelsTr", label)):
            path = folder / "decathlon" / name / f"BRATS_{number:03d}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 3.0, 1.0])), path)


def picture(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    image = random.integers(0, 120, (40, 48), dtype=np.uint8)
    mask = np.zeros((40, 48), np.uint8)
    top, left = random.integers(5, 20, 2)
    mask[top : top + 12, left : left + 14] = 255
    image[mask > 0] += 100
    return image, mask


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


# --- links ------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_internal_link_resolves(page: Path) -> None:
    broken = [
        target
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(page))
        if not re.match(r"[a-z]+:", target) and not resolves(page, target)
    ]
    assert not broken


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [PAGES[0]]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for target in re.findall(r"\]\(([^)\s#]+\.md)", prose(page)):
            waiting.append((page.parent / target).resolve())
    assert set(PAGES) <= reached


def resolves(page: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    if not path.exists():
        return False
    return not anchor or anchor in anchors(path)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def prose(page: Path) -> str:
    text = re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)


# --- configuration ----------------------------------------------------------------------------


@dataclass(frozen=True)
class ConfigRow:
    """One key of the configuration as its reference must show it."""

    key: str
    values: str
    default: str

    @property
    def start(self) -> str:
        """Return the first cells of its row."""
        return f"| `{self.key}` | {self.values} | {self.default} |"


def config_rows(model: type[BaseModel] = RunConfig, prefix: str = "") -> list[ConfigRow]:
    """Return a row for every key, straight from the models."""
    rows: list[ConfigRow] = []
    for name, field in model.model_fields.items():
        key = prefix + name.replace("_", "-")
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            rows += config_rows(section, f"{key}.")
            continue
        if key == "sites":
            rows.append(ConfigRow(key, "tables", NEW))
            rows += config_rows(SiteConfig, "sites.")
            continue
        if key == "plans":
            rows.append(ConfigRow(key, "tables", NEW))
            rows += config_rows(PlanConfig, "plans.MR.")
            continue
        default = NEW if field.is_required() else shown(field.default)
        rows.append(ConfigRow(key, values(field.annotation, field), default))
    return rows


def values(annotation: Any, field: FieldInfo) -> str:
    """Return in words what a key takes."""
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [p for p in get_args(annotation) if p is not type(None)]
        return ", ".join(values(part, field) for part in parts)
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is tuple:
        return "triples" if get_args(annotation)[-1] is Ellipsis else "three numbers"
    word = {int: "integer", float: "number", bool: "`true`, `false`", str: "text", Path: "path"}
    limits = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(limit, name):g}"
        for limit in field.metadata
        for name, sign in limits.items()
        if getattr(limit, name, None) is not None
    ]
    return " ".join([word[annotation], " and ".join(bounds)]).strip()


def shown(value: Any) -> str:
    return "not set" if value is None else f"`{json.dumps(value)}`"


def profile_rows(name: str) -> list[str]:
    """Return the rows that show what a profile changes."""
    rows = []
    for key, value in PROFILES[name].items():
        for inner, content in value.items() if isinstance(value, dict) else [("", value)]:
            rows.append(f"| `{key}{'.' if inner else ''}{inner}` | {shown(content)} |")
    return rows


@pytest.fixture
def reference() -> list[str]:
    path = ROOT / "docs/reference/configuration.md"
    return path.read_text(encoding="utf-8").splitlines()


def test_every_key_is_documented_with_its_default(reference: list[str]) -> None:
    missing = [
        row.start
        for row in config_rows()
        if not any(line.startswith(row.start) and len(line) > len(row.start) for line in reference)
    ]
    assert not missing


def test_no_key_is_documented_that_does_not_exist(reference: list[str]) -> None:
    known = {row.key for row in config_rows()}
    documented = {found[1] for line in reference if (found := re.match(r"\| `([^`]+)`", line))}
    assert documented <= known


def test_the_policy_of_a_site_is_documented(tmp_path: Path) -> None:
    from flames.federation.network.policy import Policy, load_policy

    page = ROOT / "docs/reference/site-policy.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    for name, field in Policy.model_fields.items():
        start = f"| `{name.replace('_', '-')}` | "
        if not isinstance(field.default, tuple):
            start += f"{shown(field.default)} | "
        assert any(line.startswith(start) for line in lines), start
    policies = []
    for name in (page, ROOT / "docs/how-to/decide-at-a-site.md"):
        block = next(b for b in blocks(name) if b.mark == "file: policy.toml")
        file = tmp_path / "policy.toml"
        file.write_text(block.text, encoding="utf-8")
        policies.append(load_policy(file))
    assert policies[0] == Policy()
    assert policies[1].approval


def test_the_published_profile_is_documented(reference: list[str]) -> None:
    assert [row for row in profile_rows("paper") if row not in reference] == []


def test_the_shown_federation_is_valid(tmp_path: Path) -> None:
    files = [b for b in blocks(RUN_PAGES[1]) if b.mark == "file: federation.toml"]
    path = tmp_path / "federation.toml"
    path.write_text(files[0].text, encoding="utf-8")
    config = load_config(path)
    assert [site.name for site in config.sites] == ["us-breast", "us-ovary"]


# --- style ------------------------------------------------------------------------------------

FORBIDDEN: dict[str, Callable[[str], object]] = {
    "a path of one machine": re.compile(r"(?<![\w.])/(work|opt|tmp|home|root)/").search,
    "a number of an issue": re.compile(r"(?<![\w&])#\d+").search,
    "an emoji": re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]").search,
}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_pages_hold_nothing_that_ages(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [what for what, found in FORBIDDEN.items() if found(text)] == []
