"""Templates and ISOs: from a file or a server to Ready, and who may see and change them."""

from __future__ import annotations

import hashlib
import io
import random
import re
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sqlalchemy import select

from controlplane.db.configuration import ConfigurationValue
from controlplane.errors import BadParameter, Forbidden
from controlplane.storage import fetch
from controlplane.storage.image_stores import ImageStore
from controlplane.storage.register_template import Progress
from controlplane.storage.templates import Template
from controlplane.work.jobs import Job
from tests.api.counting import queries
from tests.api.people import Company, done
from tests.api.zone_steps import make_zone

PATIENCE = 20.0


def an_archive(name="bin/sh", content=b"shell"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def images(cloud, tmp_path):
    """A folder to register from, and a store of its own."""
    folder, store = tmp_path / "images", tmp_path / "store"
    folder.mkdir()
    store.mkdir()
    (folder / "good.tar.gz").write_bytes(an_archive())
    with cloud.database.write() as session:
        session.scalars(select(ImageStore)).one().removed = session.scalars(select(ImageStore)).one().created
        session.add(ConfigurationValue(name="template.import.folder", value=str(folder)))
    cloud("addImageStore", provider="Local", url=store.as_uri(), name="store")
    return folder


def register(cloud, url, name="t", **parameters):
    given = {"name": name, "format": "TAR", "hypervisor": "LXC", "url": url, "zoneid": "-1"} | parameters
    (template,) = cloud("registerTemplate", **given)["template"]
    assert template["isready"] is False
    return template["id"]


def settled(cloud, template, state="Ready"):
    """The template, once its download has ended."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with cloud.database.read() as session:
            row = session.scalars(select(Template).where(Template.uuid == template)).one()
            job = session.scalars(select(Job).where(Job.instance_uuid == template)).first()
        if row.state in ("Ready", "Error") and job.status:
            assert row.state == state, row.error
            return row
        assert time.monotonic() < deadline, row.state
        time.sleep(0.02)


def test_a_template_from_a_file_becomes_ready(cloud, images):
    content = (images / "good.tar.gz").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    template = register(cloud, (images / "good.tar.gz").as_uri(), checksum=f"{{SHA-256}}{digest}", ispublic=True)
    row = settled(cloud, template)
    assert Path(row.path).read_bytes() == content
    assert Path(row.path).parent.parent == images.parent / "store"
    (shown,) = cloud("listTemplates", templatefilter="self")["template"]
    assert (shown["isready"], shown["status"], shown["size"]) == (True, "Download Complete", 5)
    assert (shown["physicalsize"], shown["crossZones"], shown["format"]) == (len(content), True, "TAR")
    assert "zoneid" not in shown
    cloud("updateTemplate", id=template, name="renamed", passwordenabled=True, templatetag="ssd")
    (shown,) = cloud("listTemplates", templatefilter="all", name="renamed")["template"]
    assert (shown["passwordenabled"], shown["templatetag"]) == (True, "ssd")
    done(cloud, cloud("deleteTemplate", id=template))
    assert not Path(row.path).exists()
    assert cloud("listTemplates", templatefilter="all") == {}
    (shown,) = cloud("listTemplates", templatefilter="all", showremoved=True)["template"]
    assert (shown["id"], "removed" in shown) == (template, True)


def test_the_images_of_a_removed_account_go_with_their_content(cloud, images):
    company = Company(cloud)
    sam = company.account("sam")
    owner = {"account": "sam", "domainid": sam["domainid"]}
    row = settled(cloud, register(cloud, (images / "good.tar.gz").as_uri(), **owner))
    kept = settled(cloud, register(cloud, (images / "good.tar.gz").as_uri(), name="kept", ispublic=True))
    assert Path(row.path).exists()
    job = done(cloud, cloud("deleteAccount", id=sam["id"]))
    assert job["jobstatus"] == 1, job
    assert not Path(row.path).exists()
    assert Path(kept.path).exists()
    assert [shown["name"] for shown in cloud("listTemplates", templatefilter="all")["template"]] == ["kept"]


def test_what_is_bad_inside_never_becomes_ready(cloud, images):
    (images / "evil.tar").write_bytes(an_archive("../../etc/cron.d/x"))
    (images / "back.qcow2").write_bytes(b"QFI\xfb\0\0\0\3" + b"\0" * 7 + b"\1" + b"\0" * 100)
    bad = (
        ({"url": (images / "evil.tar").as_uri()}, "leads out of it"),
        ({"url": (images / "good.tar.gz").as_uri(), "checksum": "0" * 64}, "sha256 checksum is"),
        (
            {"url": (images / "back.qcow2").as_uri(), "format": "QCOW2", "hypervisor": "Simulator"},
            "has a backing file",
        ),
        ({"url": "http://127.0.0.1:9/x.tar"}, "is not public"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, "is not public"),
    )
    for number, (parameters, why) in enumerate(bad):
        row = settled(cloud, register(cloud, name=f"bad{number}", **parameters), "Error")
        assert why in row.error
        assert row.path == ""
        (shown,) = cloud("listTemplates", templatefilter="self", name=f"bad{number}")["template"]
        assert shown["isready"] is False
        assert why in shown["status"]
    assert [path for path in (images.parent / "store").rglob("*") if path.is_file()] == []


def test_what_registertemplate_refuses_at_once(cloud, images):
    good = (images / "good.tar.gz").as_uri()
    for parameters, text in (
        ({"url": "ftp://example.org/x"}, "must be an http, https or file URL"),
        ({"url": "file:///etc/passwd"}, "must be below"),
        ({"url": f"{images.as_uri()}/none.tar"}, "there is no file"),
        ({"url": "http:///x"}, "it has no host"),
        ({"format": "ZIP"}, "must be one of TAR, QCOW2"),
        ({"format": "QCOW2"}, "LXC uses TAR"),
        ({"hypervisor": "KVM"}, "no driver for it is installed"),
        ({"checksum": "beef"}, "hexadecimal digits"),
        ({"zoneid": "7bd4b0f0-0000-4000-8000-000000000000"}, "no zone with this id"),
        ({"bits": 16}, "must be 32 or 64"),
        ({"name": "a\nb"}, "one line"),
        ({"directdownload": True}, "not supported"),
    ):
        with pytest.raises(BadParameter, match=text):
            cloud("registerTemplate", **{"name": "t", "format": "TAR", "hypervisor": "LXC", "url": good} | parameters)
    sam = Company(cloud)("sam")
    with pytest.raises(BadParameter, match="only root admins may give a file URL"):
        register(sam, good)
    with pytest.raises(BadParameter, match="only root admins may feature"):
        register(sam, "http://example.org/x.tar", isfeatured=True)
    assert cloud("listTemplates", templatefilter="all") == {}


def test_a_template_from_a_listed_site(cloud, images):
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(an_archive())

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    try:
        with cloud.database.write() as session:
            session.add(ConfigurationValue(name="secstorage.allowed.internal.sites", value="127.0.0.0/8"))
        sam = Company(cloud)("sam")
        template = register(sam, f"http://127.0.0.1:{httpd.server_port}/x.tar.gz")
        assert settled(cloud, template).size == 5
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def test_filters_and_permissions(cloud, images):
    company, zone = Company(cloud), make_zone(cloud)
    good = (images / "good.tar.gz").as_uri()
    ids = {
        "private": register(cloud, good, "private"),
        "public": register(cloud, good, "public", ispublic=True, zoneid=zone.id),
        "featured": register(cloud, good, "featured", isfeatured=True),
        "sams": register(cloud, good, "sams", account="sam", domainid=company.account("sam")["domainid"]),
    }
    for template in ids.values():
        settled(cloud, template)

    def seen(person, which, **more):
        rows = person("listTemplates", templatefilter=which, **more).get("template", [])
        return {row["name"] for row in rows}

    sam, sid, larry = company("sam"), company("sid"), company("larry")
    assert seen(sam, "featured") == {"featured"}
    assert seen(sam, "community") == {"public"}
    assert seen(sam, "self") == seen(sam, "selfexecutable") == {"sams"}
    assert seen(sam, "executable") == {"sams", "public", "featured"}
    assert seen(sid, "executable") == {"public", "featured"}
    assert seen(cloud, "all") == set(ids)
    assert seen(cloud, "all", zoneid=zone.id) == set(ids)
    with pytest.raises(BadParameter, match="for root admins only"):
        seen(sam, "all")
    with pytest.raises(BadParameter, match="no template with this id"):
        sid("listTemplates", templatefilter="executable", id=ids["sams"])
    with pytest.raises(Forbidden, match="belongs to another account"):
        sid("updateTemplate", id=ids["public"], name="mine")
    with pytest.raises(Forbidden):
        sid("deleteTemplate", id=ids["public"])
    with pytest.raises(Forbidden):
        larry("updateTemplatePermissions", id=ids["public"], ispublic=False)

    sam("updateTemplatePermissions", id=ids["sams"], op="add", accounts="sid")
    assert seen(sid, "sharedexecutable") == {"sams"}
    (permission,) = sam("listTemplatePermissions", id=ids["sams"])["templatepermission"]
    assert (permission["account"], permission["ispublic"]) == (["sid"], False)
    for parameters, text in (
        ({"op": "add", "accounts": "nobody"}, "has no such account"),
        ({"op": "add", "accounts": "sam"}, "it is the owner"),
        ({"op": "add"}, "needs names"),
        ({"accounts": "sid"}, "must be add or remove"),
        ({"isfeatured": True}, "only root admins may feature"),
    ):
        with pytest.raises(BadParameter, match=text):
            sam("updateTemplatePermissions", id=ids["sams"], **parameters)
    sam("updateTemplatePermissions", id=ids["sams"], op="remove", accounts="sid")
    assert seen(sid, "sharedexecutable") == set()
    (for_tenants,) = sid("listTemplates", templatefilter="community")["template"]
    assert "url" not in for_tenants
    with queries(cloud) as before:
        cloud("listTemplates", templatefilter="all", name="private")
    with queries(cloud) as after:
        cloud("listTemplates", templatefilter="all")
    assert len(after) <= len(before) + 1  # the zone of one of them


def test_isos(cloud, images):
    (images / "cd.iso").write_bytes(b"\0" * 32769 + b"CD001" + b"\0" * 10)
    kind = cloud("listOsTypes", description="Debian GNU/Linux 12 (64-bit)")["ostype"][0]
    given = {"name": "cd", "url": (images / "cd.iso").as_uri(), "zoneid": "-1"}
    with pytest.raises(BadParameter, match="a bootable ISO needs it"):
        cloud("registerIso", **given)
    (iso,) = cloud("registerIso", **given, ostypeid=kind["id"], ispublic=True)["iso"]
    settled(cloud, iso["id"])
    (shown,) = cloud("listIsos")["iso"]
    assert (shown["isready"], shown["ostypename"], shown["bootable"]) == (True, kind["name"], True)
    assert cloud("listTemplates", templatefilter="all") == {}
    assert [row["name"] for row in cloud("listOsCategories", isiso=True)["oscategory"]] == ["Debian"]
    with pytest.raises(BadParameter, match="no template with this id"):
        cloud("updateTemplate", id=iso["id"], name="x")
    cloud("updateIso", id=iso["id"], name="dvd")
    cloud("updateIsoPermissions", id=iso["id"], ispublic=False)
    assert cloud("listIsoPermissions", id=iso["id"])["templatepermission"][0]["ispublic"] is False
    done(cloud, cloud("deleteIso", id=iso["id"]))
    assert cloud("listIsos") == {}


def test_stores_and_os_types(cloud, images, tmp_path):
    (store,) = cloud("listImageStores")["imagestore"]
    assert (store["name"], store["providername"], store["protocol"]) == ("store", "Local", "file")
    assert store["disksizetotal"] > 0
    for url, text in (
        ("nfs://host/share", "must be file:///the/folder"),
        (f"file://{tmp_path}/none", "no such folder"),
        (store["url"], "another store has this folder"),
    ):
        with pytest.raises(BadParameter, match=text):
            cloud("addImageStore", provider="Local", url=url)
    template = register(cloud, (images / "good.tar.gz").as_uri())
    settled(cloud, template)
    with pytest.raises(Exception, match="cannot be deleted: it holds t"):
        cloud("deleteImageStore", id=store["id"])
    cloud("updateImageStore", id=store["id"], readonly=True)
    with pytest.raises(Exception, match="No image store takes new images"):
        register(cloud, (images / "good.tar.gz").as_uri(), "t2")
    family = cloud("listOsCategories", name="Unix")["oscategory"][0]["id"]
    added = cloud("addGuestOs", oscategoryid=family, osdisplayname="Plan 9")
    assert done(cloud, added)["jobresult"]["ostype"]["isuserdefined"] is True
    with pytest.raises(BadParameter, match="there is an operating system of this name"):
        cloud("addGuestOs", oscategoryid=family, osdisplayname="Plan 9")
    done(cloud, cloud("updateGuestOs", id=added["id"], osdisplayname="Plan 9 4th", forDisplay=False))
    assert Company(cloud)("sam")("listOsTypes", description="Plan 9 4th") == {}
    done(cloud, cloud("removeGuestOs", id=added["id"]))
    standard = cloud("listOsTypes", keyword="ubuntu")["ostype"][0]["id"]
    with pytest.raises(BadParameter, match="is of the standard catalogue"):
        cloud("removeGuestOs", id=standard)


@pytest.fixture
def slow(cloud):
    """A server that stops after a good third of an image until it is told to go on: its URL, and the event."""
    noise, more = random.Random(1).randbytes(3 * fetch.BLOCK), threading.Event()
    contents = {"/template": an_archive(content=noise), "/iso": bytes(32769) + b"CD001" + noise}

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            content = contents[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            first = fetch.BLOCK + (1 << 17)
            self.wfile.write(content[:first])
            more.wait(PATIENCE)
            self.wfile.write(content[first:])

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    with cloud.database.write() as session:
        session.add(ConfigurationValue(name="secstorage.allowed.internal.sites", value="127.0.0.0/8"))
    yield f"http://127.0.0.1:{httpd.server_port}", more
    more.set()
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.mark.parametrize(("kind", "finished"), [("template", "Download Complete"), ("iso", "Successfully Installed")])
def test_a_download_says_how_far_it_is(cloud, images, slow, kind, finished):
    server, more = slow
    url = f"{server}/{kind}"
    if kind == "template":
        image, listing = register(cloud, url), {"command": "listTemplates", "templatefilter": "self"}
    else:
        (iso,) = cloud("registerIso", name="i", url=url, zoneid="-1", bootable=False)["iso"]
        image, listing = iso["id"], {"command": "listIsos", "isofilter": "self"}

    def seen():
        (found,) = cloud.raw(listing)[kind]
        return found["status"], found["downloaddetails"]

    deadline = time.monotonic() + PATIENCE
    while not re.fullmatch(r"3[23]% Downloaded", (now := seen())[0]):
        assert now[0] in ("Processing", "0% Downloaded")
        assert time.monotonic() < deadline
        time.sleep(0.02)
    percent = now[0].partition("%")[0]
    assert now[1] == [{"datastore": "store", "downloadPercent": percent, "downloadState": "DOWNLOAD_IN_PROGRESS"}]
    more.set()
    settled(cloud, image)
    details = {"datastore": "store", "downloadPercent": "100", "downloadState": "DOWNLOADED"}
    assert seen() == (finished, [details])


def test_progress_is_noted_at_once_and_then_no_more_often_than_it_is_looked_at():
    notes = []
    progress = Progress(notes.append)
    for percent in range(101):
        progress.tell(percent)
    assert notes == [1]
    progress.EVERY = 0
    progress._next = 0
    for percent in (100, 100):
        progress.tell(percent)
    assert notes == [1, 100]
