"""The process: its sockets, and how it gives up root without losing what it has yet to read."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from controlplane.server import listen

ROOT = Path(__file__).resolve().parents[2]
DROP = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import parcel
from controlplane.server import become
try:
    become(sys.argv[3], Path(sys.argv[2]))
except (LookupError, PermissionError) as error:
    sys.exit(str(error))
import late, parcel.inner
Path(sys.argv[2], "mine").touch()
try:
    Path(sys.argv[1], "late.py").read_text()
except PermissionError:
    print(os.getuid(), os.getgroups(), late.NAME, parcel.inner.NAME)
try:
    os.setuid(0)
except PermissionError:
    print("for good")
"""


@pytest.fixture
def closed_code():
    """Modules below a folder that only root may enter, as root's home is."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "code")
        (folder / "parcel").mkdir(parents=True)
        (folder / "late.py").write_text("NAME = 'late'\n")
        (folder / "parcel" / "__init__.py").touch()
        (folder / "parcel" / "inner.py").write_text("NAME = 'inner'\n")
        yield folder


def drop(code, folder, user):
    argv = [sys.executable, "-c", DROP, str(code), str(folder), user]
    return subprocess.run(argv, check=False, capture_output=True, text=True, cwd=ROOT, timeout=60)


@pytest.fixture
def own():
    """A folder of the control plane's, made by root."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "key").touch(mode=0o600)
        yield Path(name)


def test_root_is_given_up_for_good_and_late_imports_still_work(closed_code, own):
    assert os.geteuid() == 0, "this test needs root, like everything that gives it up"
    found = drop(closed_code, own, "nobody")
    assert found.returncode == 0, found.stderr
    uid = own.stat().st_uid
    assert uid != 0
    assert found.stdout.splitlines() == [f"{uid} [] late inner", "for good"]
    assert {path.stat().st_uid for path in own.iterdir()} == {uid}


def test_a_folder_that_is_not_ours_is_left_alone(closed_code):
    with tempfile.TemporaryDirectory() as name:
        found = drop(closed_code, name, "nobody")
        assert found.returncode == 1
        assert f"User nobody may not write {name}" in found.stderr
        assert Path(name).stat().st_uid == 0


def test_code_that_the_user_may_not_read_is_named(closed_code, own):
    closed_code.chmod(0o700)
    assert f"User nobody may not read {closed_code}: open it" in drop(closed_code, own, "nobody").stderr


def test_a_user_who_does_not_exist_is_named(closed_code, own):
    found = drop(closed_code, own, "no-such-user")
    assert "There is no user no-such-user on this machine" in found.stderr
    assert own.stat().st_uid == 0


def test_an_address_in_use_is_named():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"Cannot listen on 127.0.0.1 port {port}"):
            listen("127.0.0.1", port)
        environment = os.environ | {"NETSPINE_PORT": str(port)}
        with tempfile.TemporaryDirectory() as name:
            argv = [sys.executable, "-m", "controlplane", "--folder", name, "serve", "--user", ""]
            found = subprocess.run(
                argv, check=False, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=60
            )
    assert found.returncode == 1
    assert f"netspine: [Errno 98] Cannot listen on 127.0.0.1 port {port}: Address already in use" in found.stderr
