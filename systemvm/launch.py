# ruff: noqa: PTH102, PTH103, PTH110, PTH123, PTH211
"""Start a container: enter its namespaces, put its root together, and become its init.

This is a program of its own (``python -I -S launch.py name=value …``), because a process that has threads cannot safely
fork. It imports next to nothing, which halves the time that it takes to start. It prints the container's process id and
ends; the container is then a session of its own and outlives whoever started it.
See namespaces(7), pivot_root(2), capabilities(7).
"""

from __future__ import annotations

import ctypes
import os
import sys

_NEW_NS, _NEW_CGROUP, _NEW_UTS, _NEW_IPC, _NEW_PID, _NEW_NET = (
    0x00020000,
    0x02000000,
    0x04000000,
    0x08000000,
    0x20000000,
    0x40000000,
)
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_DETACH = 2
_HERE = -100  # AT_FDCWD
_OPEN_TREE, _MOVE_MOUNT = 428, 429  # by the same numbers on every machine
_CLONE_CLOEXEC, _EMPTY_PATH = 1 | 0o2000000, 4
_DRIVE = "/run/config-2"
_CHARACTER_DEVICE = 0o020000
_SIGPIPE, _SIGXFSZ = 13, 25
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}
_CAPBSET_DROP = 24
_LAST_CAPABILITY = 63
_CAPABILITY_VERSION = 0x20080522

# What a guest's root may still do: its own files, users, addresses and packets; never the machine's kernel.
_KEPT = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_BIND_SERVICE": 10,
    "NET_BROADCAST": 11,
    "NET_ADMIN": 12,
    "NET_RAW": 13,
    "IPC_OWNER": 15,
    "SYS_CHROOT": 18,
    "AUDIT_WRITE": 29,
    "SETFCAP": 31,
}
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_HIDDEN = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/kmsg", "/proc/kallsyms", "/proc/sched_debug")
_READ_ONLY = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs")
_INITS = ("/sbin/init", "/init")

_libc = ctypes.CDLL(None, use_errno=True)


def _call(what: str, result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    encoded = [text.encode() for text in (source, target, kind)]
    _call(f"mounting {kind or source} on {target}", _libc.mount(*encoded, ctypes.c_ulong(flags), data.encode() or None))


def _bind(source: str, target: str, flags: int = 0) -> None:
    _mount(source, target, "", _BIND | _REC)
    if flags:
        _mount("", target, "", _BIND | _REMOUNT | flags)


def _escape(path: str) -> str:
    """Quote a path for overlay's options, where ``,`` and ``:`` divide."""
    return path.replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")


def _take_drive(folder: str) -> int:
    """Return a mount of the guest's drive that is nowhere yet: it outlives the machine's root (open_tree(2))."""
    number = _libc.syscall(_OPEN_TREE, _HERE, folder.encode(), _CLONE_CLOEXEC)
    _call("opening the drive", number < 0)
    return int(number)


def _put_drive(drive: int) -> None:
    """Mount the drive where nothing of the guest's own files can be in the way, and nothing of it is left there."""
    os.mkdir(_DRIVE)
    _call("mounting the drive", _libc.syscall(_MOVE_MOUNT, drive, b"", _HERE, _DRIVE.encode(), _EMPTY_PATH))
    os.close(drive)
    _mount("", _DRIVE, "", _BIND | _REMOUNT | _RDONLY | _NOSUID | _NODEV | _NOEXEC)


def _enter_root(order: dict[str, str]) -> None:
    """Put the template's root under the guest's own files and make that the root; nothing of the machine stays."""
    layers = {"lowerdir": order["lower"], "upperdir": order["upper"], "workdir": order["work"]}
    options = ",".join(f"{name}={_escape(path)}" for name, path in layers.items())
    _mount("overlay", order["root"], "overlay", 0, options)
    os.chdir(order["root"])
    number = _PIVOT_ROOT[os.uname().machine]
    _call("pivot_root", _libc.syscall(number, b".", b"."))
    _call("leaving the machine's root", _libc.umount2(b".", _DETACH))
    os.chdir("/")


def _fill_root() -> None:
    for folder in ("/proc", "/sys", "/dev", "/run"):
        os.makedirs(folder, exist_ok=True)
    _mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    _mount("sysfs", "/sys", "sysfs", _NOSUID | _NODEV | _NOEXEC | _RDONLY)
    _mount("run", "/run", "tmpfs", _NOSUID | _NODEV, "mode=755")
    _mount("dev", "/dev", "tmpfs", _NOSUID | _NOEXEC, "mode=755,size=64k")
    os.umask(0)
    for name, (major, minor) in _DEVICES.items():
        os.mknod(f"/dev/{name}", _CHARACTER_DEVICE | 0o666, os.makedev(major, minor))
    os.umask(0o022)
    for folder in ("/dev/pts", "/dev/shm"):  # noqa: S108 - a mount of its own
        os.mkdir(folder)
    _mount("devpts", "/dev/pts", "devpts", _NOSUID | _NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    _mount("shm", "/dev/shm", "tmpfs", _NOSUID | _NODEV, "mode=1777")  # noqa: S108
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
    for name, target in links.items():
        os.symlink(target, f"/dev/{name}")
    _guard_proc()


def _guard_proc() -> None:
    """Leave of /proc what is the guest's own: its processes, and the settings of its own network."""
    for path in _READ_ONLY:
        if os.path.exists(path):
            _bind(path, path, _RDONLY | _NOSUID | _NODEV | _NOEXEC)
    _bind("/proc/sys/net", "/proc/sys/net", _NOSUID | _NODEV | _NOEXEC)
    for path in _HIDDEN:
        if os.path.exists(path):
            _bind("/dev/null", path)


def _drop_capabilities() -> None:
    for number in range(_LAST_CAPABILITY + 1):
        if number not in _KEPT.values():
            _libc.prctl(_CAPBSET_DROP, number, 0, 0, 0)  # one that this kernel does not have: EINVAL, and no harm
    kept = sum(1 << number for number in _KEPT.values())
    low, high = kept & 0xFFFFFFFF, kept >> 32
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)  # effective, permitted, inheritable
    _call("dropping capabilities", _libc.capset(header, sets))


def _become_init(order: dict[str, str]) -> None:
    os.setsid()
    console = os.open(order["console"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    null = os.open("/dev/null", os.O_RDONLY)
    _mount("", "/", "", _REC | _PRIVATE)
    drive = _take_drive(order["drive"])
    _enter_root(order)
    _fill_root()
    _put_drive(drive)
    name = order["hostname"].encode()
    _call("setting the host name", _libc.sethostname(name, len(name)))
    init = next((path for path in _INITS if os.access(path, os.X_OK)), None)
    if init is None:
        raise RuntimeError("the template has neither /sbin/init nor /init that can be executed")
    for descriptor, standard in ((null, 0), (console, 1), (console, 2)):
        os.dup2(descriptor, standard)
    for number in (_SIGPIPE, _SIGXFSZ):
        _libc.signal(number, None)  # Python ignores them, and exec would hand that on
    _drop_capabilities()
    home = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TERM": "linux"}
    os.execve(init, [init], home | {"container": "lxc"})  # noqa: S606 - there is no shell to start it with


def main() -> int:
    """Start the container that the arguments describe; print its process id, or say why it did not start."""
    order = dict(argument.split("=", 1) for argument in sys.argv[1:])
    for procs in filter(None, order["cgroups"].split(":")):
        with open(procs, "w") as file:
            file.write("0")
    space = os.open(order["netns"], os.O_RDONLY)
    _call("entering the network namespace", _libc.setns(space, _NEW_NET))
    _call("unshare", _libc.unshare(_NEW_NS | _NEW_CGROUP | _NEW_UTS | _NEW_IPC | _NEW_PID))
    reader, writer = os.pipe()  # both close on exec: silence means that init is running
    child = os.fork()
    if child == 0:
        try:
            _become_init(order)
        except BaseException as error:  # noqa: BLE001 - whatever it was, the parent has to hear of it
            os.write(writer, str(error).encode())
        os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        reason = pipe.read()
    if reason:
        os.waitpid(child, 0)
        sys.stderr.write(reason)
        return 1
    sys.stdout.write(str(child))
    return 0


if __name__ == "__main__":
    sys.exit(main())
