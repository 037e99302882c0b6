"""The few calls of bpf(2) that a gate is made of: a map of one number, and the program that compares it with the clock.

It imports nothing of the project and little else: the process that renews leases is to stay small.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import time

_CREATE, _LOOK_UP, _UPDATE, _LOAD, _MAP_BY_ID, _INFO = 0, 1, 2, 5, 14, 15
_ARRAY, _SCHED_CLS = 2, 3
_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_ATTRIBUTES = 128
_LICENSE = b"Apache-2.0"
_KTIME_GET_BOOT_NS, _MAP_LOOKUP = 125, 1
_PASS, _DROP = -1, 2  # TC_ACT_UNSPEC: go on with what else is attached; TC_ACT_SHOT

_libc = ctypes.CDLL(None, use_errno=True)


def clock() -> int:
    """Return the time that a gate compares with: nanoseconds since boot, which nobody can set (CLOCK_BOOTTIME)."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _call(command: int, what: str, attributes: bytes) -> int:
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(f"{what}: the number of bpf(2) on {platform.machine()} is not known.")
    buffer = ctypes.create_string_buffer(attributes, _ATTRIBUTES)
    found: int = _libc.syscall(number, command, buffer, _ATTRIBUTES)
    if found < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return found


def new_map() -> int:
    """Return the descriptor of a new map that holds the number 0."""
    return _call(_CREATE, "Cannot make a BPF map", struct.pack("=IIIII", _ARRAY, 4, 8, 1, 0))


def open_map(number: int) -> int:
    """Return a descriptor of the map that the kernel knows by this number.

    :raises OSError: there is none.
    """
    return _call(_MAP_BY_ID, f"Cannot open the BPF map {number}", struct.pack("=III", number, 0, 0))


def id_of(descriptor: int) -> int:
    """Return the number by which the kernel knows a map or a program."""
    info = ctypes.create_string_buffer(256)
    _call(_INFO, "Cannot read a BPF object", struct.pack("=IIQ", descriptor, len(info), ctypes.addressof(info)))
    number: int = struct.unpack_from("=I", info, 4)[0]
    return number


def put(descriptor: int, value: int) -> None:
    """Write the map's number."""
    key, number = ctypes.create_string_buffer(4), ctypes.create_string_buffer(struct.pack("=Q", value), 8)
    where = struct.pack("=IIQQQ", descriptor, 0, ctypes.addressof(key), ctypes.addressof(number), 0)
    _call(_UPDATE, "Cannot write a BPF map", where)


def get(descriptor: int) -> int:
    """Read the map's number."""
    key, number = ctypes.create_string_buffer(4), ctypes.create_string_buffer(8)
    where = struct.pack("=IIQQQ", descriptor, 0, ctypes.addressof(key), ctypes.addressof(number), 0)
    _call(_LOOK_UP, "Cannot read a BPF map", where)
    value: int = struct.unpack("=Q", number.raw)[0]
    return value


def load(descriptor: int) -> int:
    """Return the descriptor of a traffic classifier that drops every frame from the map's number of ns on."""
    program = b"".join(
        (
            _instruction(0x85, value=_KTIME_GET_BOOT_NS),
            _instruction(0xBF, 6, 0),  # r6 = now
            _instruction(0x62, 10, offset=-4),  # the key on the stack is 0
            _instruction(0xBF, 2, 10),
            _instruction(0x07, 2, value=-4),
            _instruction(0x18, 1, 1, value=descriptor),
            _instruction(0),
            _instruction(0x85, value=_MAP_LOOKUP),
            _instruction(0x15, 0, offset=4),  # no such key: drop
            _instruction(0x79, 1, 0),  # r1 = the deadline
            _instruction(0x3D, 6, 1, 2),  # now >= deadline: drop
            _instruction(0xB7, 0, value=_PASS),
            _instruction(0x95),
            _instruction(0xB7, 0, value=_DROP),
            _instruction(0x95),
        )
    )
    code, license_ = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(_LICENSE)
    places = ctypes.addressof(code), ctypes.addressof(license_)
    what = "Cannot load the gate (CONFIG_BPF_SYSCALL and CAP_BPF are needed)"
    return _call(_LOAD, what, struct.pack("=IIQQIIQI", _SCHED_CLS, len(program) // 8, *places, 0, 0, 0, 0))


def _instruction(code: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, to | source << 4, offset, value)
