"""Plotly's script lies beside the pages, once."""

import pytest

from parity.errors import ParityError
from parity.report.plotly import SCRIPT, plotly_script


def test_it_is_written_once(tmp_path):
    path = plotly_script(tmp_path / "reports")
    assert path == tmp_path / "reports" / SCRIPT
    assert "plotly.js" in path.read_text("utf-8")[:200]
    written = path.stat().st_mtime_ns
    assert plotly_script(tmp_path / "reports").stat().st_mtime_ns == written


def test_another_one_is_replaced(tmp_path):
    path = plotly_script(tmp_path)
    script = path.read_text("utf-8")
    path.write_text("an older one")
    assert plotly_script(tmp_path).read_text("utf-8") == script
    assert [file.name for file in tmp_path.iterdir()] == [SCRIPT]


def test_a_place_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "reports").write_text("")
    with pytest.raises(ParityError, match=r"reports/plotly.min.js cannot be written"):
        plotly_script(tmp_path / "reports")
