"""The pins are whole for every Python that is allowed: pip-compile sees only what its own Python needs."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FILES = {
    "requirements.txt": PROJECT["dependencies"],
    "requirements-dev.txt": PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"],
}


@pytest.mark.parametrize("python", ["3.11.0", "3.11.3", "3.12.0", "3.13.0", "3.14.0"])
@pytest.mark.parametrize("file", FILES)
def test_everything_that_a_python_needs_is_pinned(file: str, python: str) -> None:
    lines = (ROOT / file).read_text().splitlines()
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines if "==" in line[:60]}

    needed = set(_needs([Requirement(text) for text in FILES[file]], python, set()))

    assert needed - pinned == set()


def _needs(requirements: list[Requirement], python: str, seen: set[str]) -> Iterator[str]:
    """The names of `requirements` and of all that they want; `seen` keeps circles from being followed for ever."""
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        yield name
        if str(requirement) not in seen:
            seen.add(str(requirement))
            yield from _needs(_wanted_by(name, requirement.extras, python), python, seen)


def _wanted_by(name: str, extras: set[str], python: str) -> list[Requirement]:
    versions = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    try:
        found = [Requirement(text) for text in metadata.requires(name) or ()]
    except metadata.PackageNotFoundError:
        return []  # not for this machine's Python, and a leaf so far
    return [
        want
        for want in found
        if want.marker is None or any(want.marker.evaluate(versions | {"extra": extra}) for extra in extras | {""})
    ]
