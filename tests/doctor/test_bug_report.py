"""`openrs doctor --report` where the home folder is odd, and on a run from somebody else."""

from pathlib import Path

import pytest

from openrs.doctor.bug_report import bug_report
from openrs.errors import UserError
from openrs.run.directory import Run


def run_with_log(folder: Path) -> Run:
    (folder / "attempts" / "01").mkdir(parents=True)
    (folder / "attempts" / "01" / "log").write_text("a/b/c\n")
    return Run(folder)


def test_a_home_at_the_root_as_in_a_container_hides_no_slash(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/")
    assert "a/b/c" in bug_report("", run_with_log(tmp_path / "run"))


def test_a_link_out_of_the_run_is_refused(tmp_path):
    run = run_with_log(tmp_path / "run")
    (tmp_path / "others").write_text("not of this run")
    log = run.path / "attempts" / "01" / "log"
    log.unlink()
    log.symlink_to(tmp_path / "others")
    with pytest.raises(UserError, match="a link out of the run"):
        bug_report("", run)
