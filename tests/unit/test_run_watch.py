"""What ``netspine run`` does when a process of the cloud ends by itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from controlplane import run
from controlplane.settings import Settings
from systemvm.fabric import Fabric


def ended(status: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-S", "-c", f"raise SystemExit({status})"])
    process.wait()
    return process


def test_a_process_that_ends_is_started_again_but_not_for_ever(tmp_path, monkeypatch, capsys):
    cloud = run.Standing(Settings(), run.Place(tmp_path), Fabric("never-"), None, [ended(0), ended(9)])
    stays = subprocess.Popen(["sleep", "60"])
    started = []

    def start_again(cloud, number):
        started.append(number)
        cloud.processes[number] = ended(7) if number else stays

    monkeypatch.setattr(run, "start_again", start_again)
    try:
        with pytest.raises(run.Refused, match="The agent of host-1 ended 4 times in 60 s: its log says why"):
            run.watch(cloud)
    finally:
        stays.kill()
        stays.wait()
    assert started == [0, 1, 1, 1]
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [
        "The control plane ended with 0 and is started again.",
        "The agent of host-1 ended with 9 and is started again.",
    ]
