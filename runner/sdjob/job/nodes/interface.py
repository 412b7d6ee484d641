"""This machine's network, as the processes of a gang need it: an interface's name, and a free port."""

import fcntl
import socket
import struct

SIOCGIFADDR = 0x8915  # https://man7.org/linux/man-pages/man7/netdevice.7.html
NAME_BYTES = 256


def interface_of(address: str) -> str | None:
    """By an IPv4 address of its own; None where none has it.

    gloo asks for the name, and would else take what the host's name means, which on many machines is 127.0.1.1.
    """
    wanted = address.removeprefix("::ffff:")  # as a dual-stack socket spells an IPv4 address
    return next((name for _, name in socket.if_nameindex() if ipv4_of(name) == wanted), None)


def ipv4_of(interface: str) -> str | None:
    request = struct.pack(f"{NAME_BYTES}s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            reply = fcntl.ioctl(probe, SIOCGIFADDR, request)
        except OSError:
            return None
    return socket.inet_ntoa(reply[20:24])


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago, for the processes' rendezvous."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]
