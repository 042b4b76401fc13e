"""Groups go to train, val and test: whole groups, by seed, tumours and categories shared evenly."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from flames.data.store import SPLITS, CaseRecord, SplitInfo, cases_digest
from flames.errors import FlamesError

FRACTIONS = (0.6, 0.15, 0.25)


@dataclass(frozen=True)
class _Group:
    name: str
    cases: tuple[str, ...]
    stratum: tuple[bool, str]
    order: str


def split_cases(
    cases: Iterable[CaseRecord],
    *,
    seed: int,
    fractions: tuple[float, float, float] = FRACTIONS,
    fixed: Mapping[str, int] = MappingProxyType({}),
) -> SplitInfo:
    """Return a split in which no group is on two sides.

    Within each stratum, cases with or without tumour in one category, groups go where most cases
    are still wanted; what a stratum could not share evenly is made up for in the next. The order of
    ``cases`` does not matter. With three groups or more, no side is empty; with fewer, every case
    is a test case, because nothing could be learned and judged.

    Args:
        cases: Those of a store.
        seed: Decides among groups that fit equally well.
        fractions: Shares of train, val and test.
        fixed: Groups that are where they are, with the number of their side in `SPLITS`; what they
            leave unevenly is made up for by the others.

    Raises:
        FlamesError: The fractions are not shares of 1.
    """
    cases = list(cases)
    check_fractions(fractions)
    if len({case.group for case in cases}) < len(SPLITS):
        names: list[tuple[str, ...]] = [(), (), tuple(sorted(case.case_id for case in cases))]
    else:
        names = shared_out(cases, seed=seed, shares=fractions, fixed=fixed)
    return SplitInfo(
        seed=seed,
        fractions=fractions,
        cases_digest=cases_digest(cases),
        train=names[0],
        val=names[1],
        test=names[2],
    )


def shared_out(
    cases: Iterable[CaseRecord],
    *,
    seed: int,
    shares: Sequence[float],
    fixed: Mapping[str, int] = MappingProxyType({}),
) -> list[tuple[str, ...]]:
    """Return the names of the cases of each part, no group in two, as `split_cases` says.

    There must be as many groups as parts, or more; then no part is empty.
    """
    groups = _groups(list(cases), seed)
    sides = _assign(groups, shares, fixed)
    _fill_empty(sides, shares)
    return [tuple(sorted(c for g in side for c in g.cases)) for side in sides]


def check_fractions(fractions: tuple[float, float, float]) -> None:
    """Refuse fractions that are not three positive shares of 1.

    Raises:
        FlamesError: One is not positive, or their sum is not 1.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise FlamesError(
            f"fractions {fractions} are not three positive shares of 1",
            f"write train, val and test as in {FRACTIONS}",
        )


def _groups(cases: list[CaseRecord], seed: int) -> list[_Group]:
    members: dict[str, list[CaseRecord]] = defaultdict(list)
    for case in cases:
        members[case.group].append(case)
    groups = []
    for name, inside in members.items():
        categories = Counter(c.category or "" for c in inside)
        # Not the most_common order, which depends on who came first.
        category = min(categories, key=lambda c: (-categories[c], c))
        groups.append(
            _Group(
                name,
                tuple(c.case_id for c in inside),
                (any(c.has_tumour for c in inside), category),
                hashlib.sha256(f"{seed} {name}".encode()).hexdigest(),
            )
        )
    return groups


def _assign(
    groups: list[_Group], fractions: Sequence[float], fixed: Mapping[str, int]
) -> list[list[_Group]]:
    strata: dict[tuple[bool, str], list[_Group]] = defaultdict(list)
    for group in groups:
        strata[group.stratum].append(group)
    sides: list[list[_Group]] = [[] for _ in fractions]
    wanted = [0.0] * len(fractions)
    for stratum in sorted(strata, key=lambda s: (len(strata[s]), s)):
        inside = strata[stratum]
        total = sum(len(g.cases) for g in inside)
        wanted = [w + f * total for w, f in zip(wanted, fractions, strict=True)]
        for group in inside:
            if group.name in fixed:
                sides[fixed[group.name]].append(group)
                wanted[fixed[group.name]] -= len(group.cases)
        inside = [group for group in inside if group.name not in fixed]
        # Large groups first: small ones can still even out what those leave. The rest by chance, or
        # every small group of duplicates would be in train.
        for group in sorted(inside, key=lambda g: (-_large(g, total), g.order)):
            side = max(range(len(wanted)), key=lambda i: (wanted[i], -i))
            sides[side].append(group)
            wanted[side] -= len(group.cases)
    return sides


def _large(group: _Group, total: int) -> int:
    size = len(group.cases)
    return size if size * 10 > total else 0


def _fill_empty(sides: list[list[_Group]], fractions: Sequence[float]) -> None:
    for i in sorted(range(len(sides)), key=lambda i: -fractions[i]):
        if sides[i]:
            continue
        giver = max((s for s in sides if len(s) > 1), key=len)
        # A tumour case first: a side without any could score nothing.
        group = min(giver, key=lambda g: (not g.stratum[0], len(g.cases), g.order))
        giver.remove(group)
        sides[i].append(group)
