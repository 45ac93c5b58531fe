"""The code of the guide and of the pages beside it, on simulated hosts."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Simulated

DOCS = Path(__file__).parents[3] / "docs"


def blocks(page: str) -> "list[tuple[int, str]]":
    """Blocks of Python, each with the line before it."""
    text = (DOCS / page).read_text()
    found = re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(text[: block.start(1)].count("\n"), block.group(1)) for block in found]


@pytest.mark.parametrize(
    ("page", "least"), [("python.md", 10), ("from-libvirt-python.md", 2), ("from-labgrid.md", 1)]
)
def test_the_code_of_a_page_runs(
    simulated: Simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str, least: int
) -> None:
    pytest.importorskip("polars")
    (tmp_path / "atp").mkdir()
    shutil.copy(simulated.config, tmp_path / "atp" / "config.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = blocks(page)
    assert len(found) >= least
    names: dict[str, object] = {"__name__": "guide"}
    for line, block in found:
        exec(compile("\n" * line + block, str(DOCS / page), "exec"), names)
    getattr(names["fleet"], "close")()


def test_the_tests_of_a_page_pass(simulated: Simulated, tmp_path: Path) -> None:
    (tmp_path / "test_page.py").write_text("\n".join(block for _, block in blocks("from-avocado-vt.md")))
    command = [sys.executable, "-m", "pytest", "-q", f"--atp-config={simulated.config}"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "3 passed" in result.stdout, result.stdout + result.stderr
