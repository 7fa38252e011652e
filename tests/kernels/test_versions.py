from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kernels import versions


def test_templates_and_versions_were_looked_at_together() -> None:
    before, now = versions.recorded(), versions.present()
    assert len(now["templates"]) > 30 and len(now["versions"]) > 20
    found = {kind: versions.changed(before, now, kind) for kind in now}
    assert found == {"versions": [], "templates": []}, (
        "raise the version of each tactic whose kernels these change, then run python -m tests.kernels.versions"
    )


def test_a_template_is_not_recorded_without_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = versions.present()
    before = {**now, "templates": {**now["templates"], "cuda/templates/tiled.cu": "another"}}
    monkeypatch.setattr(versions, "RECORD", tmp_path / "versions.json")
    versions.RECORD.write_text(json.dumps(before), encoding="utf-8")
    assert versions.main(same_kernels=False) == 1
    assert "cuda/templates/tiled.cu changed, and no tactic's version" in capsys.readouterr().out
    assert versions.recorded() == before
    assert versions.main(same_kernels=True) == 0 and versions.recorded() == now
    older = {**before, "versions": {**now["versions"], "cuda_gemm_tma": 0}}
    versions.RECORD.write_text(json.dumps(older), encoding="utf-8")
    assert versions.main(same_kernels=False) == 0 and versions.recorded() == now
