"""Two runs on one machine: the second is refused before it touches anything of the first."""

from __future__ import annotations

import os
import socket

import pytest

from controlplane import run
from controlplane.settings import Settings
from systemvm import netns
from systemvm.fabric import Fabric


def test_a_run_with_the_namespaces_of_another_is_refused(tmp_path):
    prefix = f"t{os.getpid()}x-"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"\0netspine/{prefix}")
        place = run.Place(tmp_path / "var")
        refused = pytest.raises(run.Refused, match=f"has the namespaces {prefix}.*NETSPINE_PREFIX")
        with refused, run.standing(Settings(), place, Fabric(prefix)):
            raise AssertionError("two clouds stand with the same namespaces")
    assert netns.names(prefix) == []


def test_a_run_in_the_folder_of_another_is_refused(tmp_path):
    (tmp_path / "var").mkdir()
    place, prefix = run.Place(tmp_path / "var"), f"t{os.getpid()}y-"
    with (
        run._alone_in(place),
        pytest.raises(run.Refused, match="stop that one first, or set NETSPINE_DIR"),
        run.standing(Settings(), place, Fabric(prefix)),
    ):
        raise AssertionError("two clouds stand in one folder")
    assert netns.names(prefix) == []


def test_a_port_that_somebody_else_has_is_refused_by_name(tmp_path):
    prefix = f"t{os.getpid()}z-"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = pytest.raises(run.Refused, match=rf"127.0.0.1:{port} cannot be listened on .*NETSPINE_PORT")
        with refused, run.standing(Settings(port=port), run.Place(tmp_path / "var"), Fabric(prefix)):
            raise AssertionError("another process would answer for the control plane")
    assert netns.names(prefix) == []
