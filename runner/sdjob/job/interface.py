"""The name of the network interface that has an address: gloo asks for it by name, and would take what the host's name means,
which on many machines is 127.0.1.1."""

import fcntl
import socket
import struct

SIOCGIFADDR = 0x8915  # https://man7.org/linux/man-pages/man7/netdevice.7.html
NAME_BYTES = 256


def interface_of(address: str) -> str | None:
    """None where no interface has this IPv4 address."""
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
