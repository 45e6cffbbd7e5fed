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
    """Scenarios that passed."""

    covered: Covered = field(default_factory=dict)

    def note(self, client: str, version: str, scenario: str) -> None:
        found = self.covered.setdefault(client, {}).setdefault(version, [])
        if scenario not in found:
            found.append(scenario)

    def save(self) -> None:
        """Clients that were not asked this time keep what they had."""
        if self.covered:
            kept = load()
            for client, versions in self.covered.items():
                kept.setdefault(client, {}).update(versions)
            CACHE.mkdir(parents=True, exist_ok=True)
            FILE.write_text(json.dumps(kept, indent=1) + "\n")


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


def in_readme(client: str) -> set[str]:
    """The scenarios that the README names for a client."""
    part = README.read_text().partition(START)[2].partition(END)[0]
    cells = [line.split(" | ") for line in part.splitlines() if line.startswith(f"| {client} |")]
    return {scenario for row in cells for scenario in row[2].removesuffix(" |").split(", ")}


def write_readme() -> None:
    text = README.read_text()
    before, _, rest = text.partition(START)
    after = rest.partition(END)[2]
    README.write_text(f"{before}{START}\n{table(load())}\n{END}{after}")


if __name__ == "__main__":
    write_readme()
