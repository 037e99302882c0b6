"""Daemons that outlive who started them, and are always known to whoever comes next."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from systemvm.daemon import Daemon

KILLED_BEFORE_THE_NOTE = """
import os, signal, sys
from pathlib import Path
from systemvm.daemon import Daemon

class Dying(Daemon):
    def note(self, pid):
        print(pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

Dying("sleeper", "", Path(sys.argv[1])).start(["sleep", "60"], Path("/"))
"""


def test_it_is_the_program_itself_that_is_noted(tmp_path: Path):
    daemon = Daemon("sleeper", "", tmp_path)
    pid = daemon.start(["sleep", "60"], tmp_path)
    try:
        until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x0060\x00")
        assert daemon.pid() == Daemon("sleeper", "", tmp_path).pid() == pid
        assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")
    finally:
        daemon.stop()
    assert daemon.pid() is None
    assert not Path(f"/proc/{pid}/cmdline").exists()


def test_nothing_runs_that_nobody_has_a_note_of(tmp_path: Path):
    argv = [sys.executable, "-c", KILLED_BEFORE_THE_NOTE, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == -9, done.stderr
    pid = int(done.stdout)
    until(lambda: not Path(f"/proc/{pid}/cwd").exists())
    assert Daemon("sleeper", "", tmp_path).pid() is None


def until(check):
    deadline = time.monotonic() + 5
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.005)
