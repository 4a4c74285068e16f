"""Life and death of the instances: what the books say happens, and what happened stands in the books."""

import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.ec2_cloud.books import Books, stamp
from tests.ec2_cloud.machine import Machine

PROJECT = Path(__file__).resolve().parent.parent.parent
BY_ITSELF = ("Client.InstanceInitiatedShutdown", "Instance initiated shutdown")
BY_USER = ("Client.UserInitiatedShutdown", "User initiated shutdown")
BY_SPOT = ("Server.SpotInstanceTermination", "Instance terminated by AWS")
BY_HOST = ("Server.InternalError", "host died")


class Cloud:
    """All instances of one process. `reachable` holds the ports of this machine's loopback that the next ones to boot can reach."""

    def __init__(self, books: Books, folder: Path, image: str, reachable: Iterable[int], hidden: Iterable[str]) -> None:
        self.books, self.folder, self.image = books, folder, image
        self.reachable, self.hidden = set(reachable), {str(folder), *hidden}
        self._alive: set[str] = set()  # also those that only boot
        self._machines: dict[str, Machine] = {}
        self._why: dict[str, tuple[str, str]] = {}
        self._notices: dict[str, str] = {}

    def launched(self, instance_ids: Iterable[str]) -> None:
        """Boot what was just written into the books."""
        for instance_id in instance_ids:
            self._alive.add(instance_id)
            self.books.set_state(instance_id, "pending")
            threading.Thread(target=self._live, args=(instance_id,), daemon=True).start()

    def terminated(self, instance_ids: Iterable[str]) -> None:
        """The books say terminated; the machines still have their grace."""
        for instance_id in instance_ids:
            if instance_id in self._alive:
                self.books.set_state(instance_id, "shutting-down")
                self._end(instance_id, BY_USER)

    def interrupt(self, instance_id: str, seconds: float) -> None:
        """A spot interruption: its notice now, its end later."""
        self._notices[instance_id] = stamp(seconds)
        threading.Timer(seconds, self._end, (instance_id, BY_SPOT)).start()

    def kill(self, instance_id: str) -> None:
        """Its host dies."""
        self._why.setdefault(instance_id, BY_HOST)
        machine = self.machine(instance_id)
        if machine:
            machine.power_off()

    def machine(self, instance_id: str) -> Machine | None:
        """The living machine of that id."""
        return self._machines.get(instance_id)

    def close(self) -> None:
        """Power everything off."""
        for machine in list(self._machines.values()):
            machine.power_off()

    def console(self, instance_id: str) -> bytes:
        """The last 64 KiB that it said; kept when it is gone."""
        path = self.folder / f"{instance_id}.log"
        return path.read_bytes()[-65_536:] if path.exists() else b""

    def _end(self, instance_id: str, why: tuple[str, str]) -> None:
        self._why.setdefault(instance_id, why)
        machine = self.machine(instance_id)
        if machine:
            threading.Thread(target=machine.shut_down, daemon=True).start()

    def _live(self, instance_id: str) -> None:
        """One instance from its boot to its end, in a thread of its own, which must live as long."""
        try:
            told = {"ports": sorted(self.reachable), "image": self.image, "bound": self._bound(), "hidden": sorted(self.hidden)}
            machine = Machine(instance_id, self.folder, self.books.user_data(instance_id), told, lambda: self._metadata(instance_id))
        except OSError as error:
            (self.folder / f"{instance_id}.log").open("a").write(f"the test cloud could not boot it: {error}\n")
            self._alive.discard(instance_id)
            return self.books.end(instance_id, "Server.InternalError", str(error))
        self._machines[instance_id] = machine
        with self.books.lock:
            ended_already = instance_id in self._why
            if not ended_already:
                self.books.set_state(instance_id, "running")
        if ended_already:
            threading.Thread(target=machine.shut_down, daemon=True).start()
        machine.wait()
        del self._machines[instance_id]
        self._alive.discard(instance_id)
        return self.books.end(instance_id, *self._why.pop(instance_id, BY_ITSELF))

    def _metadata(self, instance_id: str) -> dict[str, Any]:
        return self.books.metadata(instance_id, self._notices.get(instance_id))

    def _bound(self) -> list[str]:
        """Folders that a machine needs and that the layer over `/` wouldn't show: those on other file systems, or all in another image."""
        needed = {str(PROJECT), sys.prefix, sys.base_prefix}
        root = Path("/").stat().st_dev
        return sorted(folder for folder in needed if self.image != "/" or Path(folder).stat().st_dev != root)
