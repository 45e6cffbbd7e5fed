"""What the clients' tests covered in their last run, and the README's table that is made of it.

python -m tests.acceptance.clients.record      # writes the table into README.md
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.clients.environments import CACHE

README = Path(__file__).resolve().parents[3] / "README.md"
FILE = CACHE / "covered.json"
START, END = "<!-- clients: start -->", "<!-- clients: end -->"

Covered = dict[str, dict[str, list[str]]]  # client, version, scenarios


@dataclass(slots=True)
class Record:
    """Scenarios that passed, in each of their variants."""

    covered: Covered = field(default_factory=dict)
    _failed: set[tuple[str, str, str]] = field(default_factory=set)

    def note(self, client: str, version: str, scenario: str, *, passed: bool = True) -> None:
        found = self.covered.setdefault(client, {}).setdefault(version, [])
        if not passed:
            self._failed.add((client, version, scenario))
        if (client, version, scenario) in self._failed:
            found[:] = [name for name in found if name != scenario]
        elif scenario not in found:
            found.append(scenario)

    def save(self) -> None:
        """Clients that were not asked this time keep what they had; of the others nothing older is kept."""
        if self.covered:
            CACHE.mkdir(parents=True, exist_ok=True)
            FILE.write_text(json.dumps(load() | self.covered, indent=1) + "\n")


def load() -> Covered:
    found: Covered = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found


def words_of(scenario: str) -> str:
    return scenario.replace("_", " ")


def table(covered: Covered) -> str:
    """Versions that cover the same share a row."""
    rows = ["| client | versions | what is covered |", "|---|---|---|"]
    for client, versions in sorted(covered.items(), key=lambda item: item[0].lower()):
        by_scenarios: dict[tuple[str, ...], list[str]] = {}
        for version, scenarios in versions.items():
            by_scenarios.setdefault(tuple(scenarios), []).append(version)
        for names, same in by_scenarios.items():
            rows.append(f"| {client} | {', '.join(same)} | {', '.join(map(words_of, names))} |")
    return "\n".join(rows)


def in_readme() -> dict[str, dict[str, set[str]]]:
    """What the README claims: client, version, scenarios in its words."""
    part = README.read_text().partition(START)[2].partition(END)[0]
    claimed: dict[str, dict[str, set[str]]] = {}
    for line in part.strip().splitlines()[2:]:
        client, versions, scenarios = line.removeprefix("| ").removesuffix(" |").split(" | ")
        for version in versions.split(", "):
            claimed.setdefault(client, {})[version] = set(scenarios.split(", "))
    return claimed


def write_readme() -> None:
    text = README.read_text()
    before, _, rest = text.partition(START)
    after = rest.partition(END)[2]
    README.write_text(f"{before}{START}\n{table(load())}\n{END}{after}")


if __name__ == "__main__":
    write_readme()
