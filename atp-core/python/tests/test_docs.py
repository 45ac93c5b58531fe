"""The code of the guide, on simulated hosts."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import Simulated

GUIDE = Path(__file__).parents[3] / "docs" / "python.md"


def test_the_code_of_the_guide_runs(simulated: Simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("polars")
    (tmp_path / "atp").mkdir()
    shutil.copy(simulated.config, tmp_path / "atp" / "config.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    text = GUIDE.read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    names: dict[str, object] = {"__name__": "guide"}
    for block in blocks:
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, str(GUIDE), "exec"), names)
    getattr(names["fleet"], "close")()
