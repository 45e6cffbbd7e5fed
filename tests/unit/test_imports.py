"""Imports go one way: opensvm -> proxy -> keys; and nothing of the product knows the tests or the benchmark."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "keys": {"proxy", "opensvm", "tests", "bench"},
    "proxy": {"opensvm", "tests", "bench"},
    "opensvm": {"tests", "bench"},
}


def _imported_packages(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_no_package_above_it(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    wrong = {f"{path.relative_to(ROOT)}: {name}" for path in files for name in _imported_packages(path)} & {
        f"{path.relative_to(ROOT)}: {name}" for path in files for name in FORBIDDEN[package]
    }
    assert not wrong


def test_proxy_has_no_models() -> None:
    assert not (ROOT / "proxy" / "models.py").exists()
    assert not (ROOT / "proxy" / "models").exists()
