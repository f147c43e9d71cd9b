"""A script that takes from itself what a worker does not need, then becomes the worker's interpreter.

``python -I -S confine.py make`` makes a network that holds nothing but its own loopback, and keeps it until its
standard input ends. ``python -I -S confine.py run PLAN PROGRAM ARGUMENT…`` joins that network, remounts all but a few
folders read-only in a mount namespace of its own, drops every capability and replaces itself: the process stays the
same one.
It needs Linux, and nothing but Python: where a step is refused it says which, in one line, and runs no program.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import resource
import socket
import stat
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

REFUSED = 126  # exit status
# Of <sched.h>, <sys/mount.h> and <sys/prctl.h>.
_NEW_MOUNTS, _NEW_USERS, _NEW_NETWORK = 0x20000, 0x10000000, 0x40000000
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXEC = 1, 2, 4, 8
_REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 32, 4096, 16384, 1 << 18
_FLAGS = {
    "ro": _READ_ONLY,
    "nosuid": _NO_SUID,
    "nodev": _NO_DEVICES,
    "noexec": _NO_EXEC,
    "noatime": 1024,
    "nodiratime": 2048,
    "relatime": 1 << 21,
}
_DROP_FROM_BOUNDS, _NO_NEW_PRIVILEGES, _AMBIENT, _CLEAR_ALL = 24, 38, 47, 4
_MOUNT_SETATTR, _FROM_HERE, _WHOLE_TREE = 442, -100, 0x8000  # the number of the call: on all but Alpha
_CAPABILITIES_V3 = 0x20080522
_SHARED_MEMORY = "/dev/shm"

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The kernel does not allow a step."""


def _call(what: str, function: str, *arguments: Any) -> None:
    if getattr(_libc, function)(*arguments) != 0:
        raise Refused(f"{what}: {os.strerror(ctypes.get_errno())}")


def _write(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="ascii")


def _new_users(others: int) -> None:
    """Enter a user namespace, and others of its own, as the user that one is."""
    user, group = os.geteuid(), os.getegid()
    _call("user namespaces", "unshare", _NEW_USERS)
    try:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    except OSError as error:
        raise Refused(f"user namespaces: {error.strerror}") from error
    _call("namespaces of the network or of mounts", "unshare", others)


def make_network() -> None:
    """Be in a new network that has a loopback."""
    _new_users(_NEW_NETWORK)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            request = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP, IFF_RUNNING
            fcntl.ioctl(any_socket, 0x8914, request)  # SIOCSIFFLAGS
    except OSError as error:
        raise Refused(f"the loopback of a network namespace: {error.strerror}") from error


def join_network(users: int, network: int) -> None:
    """Enter the network that two descriptors name, and leave the powers over it."""
    for descriptor in (users, network):
        _call("joining a network namespace", "setns", descriptor, 0)
        os.close(descriptor)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    extra = None if data is None else data.encode()
    _call(f"mounting {target}", "mount", *words, ctypes.c_ulong(flags), extra)


def _mounts() -> dict[str, list[str]]:
    """Return the options of what is mounted at each place, on top where there are several."""
    found = {}
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            words = line.split(" ")
            place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), words[4])
            found[place] = words[5].split(",")
    return found


def _set_read_only(place: str, *, on: bool, tree: bool) -> bool:
    """Let a mount, or all below it, be written or not; return whether this kernel (5.12) has a call for it."""
    attributes = struct.pack("QQQQ", int(on), int(not on), 0, 0)
    at = ctypes.c_char_p(os.fsencode(place))
    numbers = [ctypes.c_long(_MOUNT_SETATTR), ctypes.c_long(_FROM_HERE)]
    flags = [ctypes.c_long(_WHOLE_TREE if tree else 0), attributes, ctypes.c_long(len(attributes))]
    return bool(_libc.syscall(numbers[0], numbers[1], at, *flags) == 0)


def _remount(place: str, options: Sequence[str], *, read_only: bool) -> None:
    """As the above, for older kernels; flags that are there must be given again."""
    flags = sum(_FLAGS.get(option, 0) for option in options) & ~_READ_ONLY
    _mount(None, place, None, flags | _REMOUNT | _BIND | (_READ_ONLY if read_only else 0))


def _own_shared_memory() -> None:
    """Give this process shared memory of its own; folders that others keep there are shown in it."""
    place = Path(_SHARED_MEMORY).resolve()
    if not place.is_dir():
        return
    old = os.open(place, os.O_PATH | os.O_DIRECTORY)
    folders = [entry.name for entry in os.scandir(place) if entry.is_dir(follow_symlinks=False)]
    _mount("tmpfs", str(place), "tmpfs", _NO_SUID | _NO_DEVICES, "mode=1777")
    for folder in folders:
        (place / folder).mkdir()
        with suppress(Refused):  # a folder that is another user's
            _mount(f"/proc/self/fd/{old}/{folder}", str(place / folder), None, _BIND | _RECURSIVE)
    os.close(old)


def _hide_disks() -> None:
    """Put nothing in the place of block devices: root may write to them whatever is mounted how."""
    for entry in os.scandir("/dev"):
        if stat.S_ISBLK(entry.stat(follow_symlinks=False).st_mode):
            _mount("/dev/null", entry.path, None, _BIND)


def lock_tree(writable: Sequence[str]) -> None:
    """Let nothing be written in any folder but these, and in a shared memory of its own."""
    folders = [os.path.realpath(folder) for folder in writable]
    _mount(None, "/", None, _RECURSIVE | _PRIVATE)
    _own_shared_memory()
    _hide_disks()
    for folder in folders:
        _mount(folder, folder, None, _BIND)
    allowed = [*folders, os.path.realpath(_SHARED_MEMORY)]
    if not _set_read_only("/", on=True, tree=True):
        for place, options in _mounts().items():
            with suppress(Refused):  # it is looked at below
                _remount(place, options, read_only=True)
    for place in set(allowed) & set(_mounts()):
        if not _set_read_only(place, on=False, tree=False):
            _remount(place, _mounts()[place], read_only=False)
    open_still = [place for place, options in _mounts().items() if place not in allowed and "ro" not in options]
    if open_still:
        raise Refused(f"{open_still[0]} cannot be mounted read-only")


def drop_powers() -> None:
    """Give up every capability, in this namespace too, for good."""
    for number in range(64):
        if _libc.prctl(_DROP_FROM_BOUNDS, number, 0, 0, 0) != 0:
            break  # there are no more
    _libc.prctl(_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    _call("dropping privileges", "prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _call("dropping privileges", "capset", struct.pack("Ii", _CAPABILITIES_V3, 0), bytes(24))


def confine(plan: dict[str, Any]) -> None:
    """Do what a plan says: ``network`` (two descriptors), ``writable`` (folders), ``memory`` (bytes); null leaves it.

    Raises:
        Refused: the kernel does not allow a step, or it allowed it and nothing came of it.
    """
    if plan["memory"]:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        limit = plan["memory"] if most == resource.RLIM_INFINITY else min(plan["memory"], most)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    if plan["network"]:
        join_network(*plan["network"])
    if plan["writable"]:
        _new_users(_NEW_MOUNTS)  # of its own: workers that share a network have no power over each other
        lock_tree(plan["writable"])
    if plan["network"] or plan["writable"]:
        drop_powers()


def _main(words: Sequence[str]) -> NoReturn:
    try:
        if words[0] == "make":
            make_network()
            os.write(1, b"made\n")
            os.read(0, 1)
            sys.exit()
        confine(json.loads(words[1]))
    except (Refused, OSError) as error:
        sys.exit(_said(str(error), REFUSED))
    try:
        os.execvp(words[2], [*words[2:]])
    except OSError as error:
        sys.exit(_said(error.strerror or str(error), 127))


def _said(reason: str, status: int) -> int:
    os.write(2, f"{reason}\n".encode(errors="backslashreplace"))
    return status


if __name__ == "__main__":
    _main(sys.argv[1:])
