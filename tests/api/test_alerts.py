"""Alerts: one while the condition lasts."""

from __future__ import annotations

import pytest

from controlplane.errors import BadParameter, Unauthenticated
from controlplane.events import alerts
from controlplane.events.alerts import Alert, clear_alert, raise_alert
from tests.api.people import Company


def notice(cloud, what, *arguments, **more):
    with cloud.database.write() as session:
        what(session, *arguments, **more)


def test_one_alert_while_the_condition_lasts(cloud):
    for times in range(3):
        notice(cloud, raise_alert, alerts.HOST, "Host h1 is down", f"for {times} minutes")
    notice(cloud, raise_alert, alerts.HOST, "Host h2 is down")
    found = cloud("listAlerts")["alert"]
    assert [row["description"] for row in found] == ["Host h2 is down", "for 2 minutes"]
    assert (found[1]["name"], found[1]["type"]) == ("ALERT.COMPUTE.HOST", 7)
    with cloud.database.read() as session:
        assert session.query(Alert).order_by(Alert.id).first().times == 3
    notice(cloud, clear_alert, alerts.HOST, "Host h1 is down")
    notice(cloud, clear_alert, alerts.HOST, "Host h1 is down")
    notice(cloud, raise_alert, alerts.HOST, "Host h1 is down", "again")
    assert [row["description"] for row in cloud("listAlerts")["alert"]] == ["again", "Host h2 is down", "for 2 minutes"]


def test_generating_archiving_and_deleting(cloud):
    reference = cloud("generateAlert", type=9, name="my alert", description="look at this")
    assert cloud("queryAsyncJobResult", jobid=reference["jobid"])["jobresult"] == {"success": True}
    (alert,) = cloud("listAlerts")["alert"]
    assert (alert["type"], alert["name"], alert["description"]) == (9, "my alert", "look at this")
    assert cloud("listAlerts", type="ALERT.COMPUTE.HOST") == {}
    assert cloud("listAlerts", type=9, name="MY ALERT", keyword="look")["count"] == 1
    cloud("archiveAlerts", ids=alert["id"])
    assert cloud("listAlerts") == {}
    notice(cloud, raise_alert, alerts.HOST, "Host h1 is down")
    cloud("deleteAlerts", startdate="2020-01-01", enddate="2020-01-02")
    assert cloud("listAlerts")["count"] == 1
    cloud("deleteAlerts", type=7)
    assert cloud("listAlerts") == {}
    for command, parameters, words in (
        ("deleteAlerts", {}, "give ids, or"),
        ("deleteAlerts", {"type": "x"}, "number or the name"),
        ("generateAlert", {"type": "x", "name": "a", "description": "b"}, "whole number"),
        ("generateAlert", {"type": 1, "name": "a\nb", "description": "b"}, "control characters"),
    ):
        with pytest.raises(BadParameter, match=words):
            cloud(command, **parameters)
    assert {"type": 7, "name": "ALERT.COMPUTE.HOST"} in cloud("listAlertTypes")["alerttype"]


def test_alerts_are_not_for_tenants(cloud):
    company = Company(cloud)
    for name in ("sam", "sally"):
        for command in ("listAlerts", "listAlertTypes", "deleteAlerts"):
            with pytest.raises(Unauthenticated):
                company(name)(command)
