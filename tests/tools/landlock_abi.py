#!/usr/bin/env python3
"""Runs a command on a kernel that claims an older Landlock ABI.

    landlock_abi.py ABI COMMAND [ARGUMENT...]

Answers the ABI query (landlock_create_ruleset with the version flag) with ABI through a seccomp user notification and
lets every other call go on unchanged. Needs root or no_new_privs, which it sets.
"""
import ctypes
import fcntl
import os
import socket
import struct
import sys

SYS_SECCOMP, SYS_CREATE_RULESET = 317, 444
SET_MODE_FILTER, NEW_LISTENER = 1, 8
RET_ALLOW, RET_NOTIFY = 0x7FFF0000, 0x7FC00000
PR_SET_NO_NEW_PRIVS = 38
# struct seccomp_notif: id, pid, flags, nr, arch, ip, args[6]
NOTIF = struct.Struct("=QIIiIQ6Q")
RESPONSE = struct.Struct("=QqiI")
FLAG_CONTINUE = 1
IOCTL_RECV = 0xC0502100
IOCTL_SEND = 0xC0182101

libc = ctypes.CDLL(None, use_errno=True)


def install():
    """Installs the filter in this process and returns its listener."""
    code = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in [
            (0x20, 0, 0, 0),  # load the number
            (0x15, 0, 1, SYS_CREATE_RULESET),
            (0x06, 0, 0, RET_NOTIFY),
            (0x06, 0, 0, RET_ALLOW),
        ]
    )
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("=H6xQ", len(code) // 8, ctypes.addressof(buffer))
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    listener = libc.syscall(SYS_SECCOMP, SET_MODE_FILTER, NEW_LISTENER, ctypes.c_char_p(program))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


def serve(listener, abi):
    """Answers until nobody with the filter is left."""
    while True:
        request = bytearray(NOTIF.size)
        try:
            fcntl.ioctl(listener, IOCTL_RECV, request)
        except OSError:
            return
        unique, _, _, _, _, _, attr, _, flags, *_ = NOTIF.unpack(request)
        if attr == 0 and flags == 1:
            answer = RESPONSE.pack(unique, abi, 0, 0)
        else:
            answer = RESPONSE.pack(unique, 0, 0, FLAG_CONTINUE)
        try:
            fcntl.ioctl(listener, IOCTL_SEND, bytearray(answer))
        except OSError:
            pass


def main():
    abi, command = int(sys.argv[1]), sys.argv[2:]
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        listener = install()
        socket.send_fds(theirs, [b"x"], [listener])
        os.close(listener)
        theirs.close()
        os.execvp(command[0], command)
    theirs.close()
    _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    helper = os.fork()
    if helper == 0:
        serve(descriptors[0], abi)
        os._exit(0)
    os.close(descriptors[0])
    _, status = os.waitpid(child, 0)
    os.kill(helper, 9)
    os.waitpid(helper, 0)
    sys.exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


main()
