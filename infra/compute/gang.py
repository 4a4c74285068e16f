"""Several machines that train as one: which of them this is, and where the first one listens for the others."""

import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

import psutil
from pydantic import Field

from infra.revisions import Frozen


class Gang(Frozen):
    """`nodes` machines of one training. This is number `node`; number 0 listens at `address` and `port`."""

    nodes: int = Field(ge=2, le=64)
    node: int = Field(ge=0, le=63)
    address: str
    port: int = Field(ge=1, le=65535)

    def member(self, node: int) -> "Gang":
        """The same gang, seen from another of its machines."""
        return self.model_copy(update={"node": node})


def new_gang(nodes: int, server: str) -> Gang:
    """A gang led by this machine, at the address that it reaches a server (a URL) from, and a port that is free now."""
    address = own_address(urlsplit(server).hostname or "127.0.0.1")
    with socket.create_server((address, 0)) as listening:
        return Gang(nodes=nodes, node=0, address=address, port=listening.getsockname()[1])


def own_address(towards: str) -> str:
    """The address of this machine that another one answers to. Nothing is sent: the kernel is asked for its route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect((towards, 9))
        return str(asking.getsockname()[0])


def interface_variables(address: str) -> Mapping[str, str]:
    """What keeps gloo and NCCL on the network that the others are on; by themselves they go by the machine's name, which may mean loopback."""
    names = [name for name, found in psutil.net_if_addrs().items() if any(entry.address == address for entry in found)]
    return dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), names[0]) if names else {}
