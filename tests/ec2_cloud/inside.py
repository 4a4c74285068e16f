"""The first process of an instance: `python -I -S inside.py JSON`, in fresh namespaces. Standard library only.

It hands its listening sockets to the cloud, which answers for what is outside; swaps the root; runs the user data; and when that ends, or somebody
says `shutdown`, ends everything as an init does.
"""

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

IMDS_ADDRESS = "169.254.169.254"
GRACE_SECONDS = 20.0
SIOCSIFFLAGS, UP_AND_RUNNING = 0x8914, 0x41
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHUTDOWN = "#!/bin/sh\nkill -TERM 1\n"
CLOUD_INIT = """#!/bin/sh
mkdir -p /etc/cloud/cloud.cfg.d
printf 'datasource_list: [Ec2]\\ndatasource: {Ec2: {max_wait: 5, timeout: 2}}\\nnetwork: {config: disabled}\\n' > /etc/cloud/cloud.cfg.d/99-test.cfg
for stage in 'init --local' init 'modules --mode=config' 'modules --mode=final'; do cloud-init $stage; done
"""


def main(told: dict) -> None:
    """From power on to power off."""
    stopping: list = []  # from the first moment: a signal that nobody handles is lost on a first process
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(time.monotonic()))
    control = socket.socket(fileno=told["control"])
    socket.sethostname(told["id"])
    listeners = _listeners(told["ports"])
    socket.send_fds(control, [b"up"], [listener.fileno() for listener in listeners])
    for listener in listeners:
        listener.close()
    control.close()
    _swap_root(told["room"], told["image"], told["bound"], told["hidden"])
    _become_ec2(told["id"])
    start = Path("/var/lib/cloud/boot")
    start.parent.mkdir(parents=True, exist_ok=True)
    start.write_text(told["user_data"] if told["image"] == "/" else CLOUD_INIT)
    start.chmod(0o700)
    _run(str(start), stopping)
    sys.stdout.flush()
    os._exit(0)


def _listeners(ports: list) -> list:
    """Sockets of this network namespace: the metadata service, and one for each port of the outside that can be reached."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", UP_AND_RUNNING))
    _do("ip", "addr", "add", f"{IMDS_ADDRESS}/32", "dev", "lo")
    found = []
    for address in [(IMDS_ADDRESS, 80), *[("127.0.0.1", port) for port in ports]]:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(64)
        found.append(listener)
    return found


def _swap_root(room: str, image: str, bound: list, hidden: list) -> None:
    """A throw-away layer over the image; `bound` folders of the host shine through, `hidden` ones are empty."""
    _do("mount", "--make-rprivate", "/")
    _do("mount", "-t", "tmpfs", "tmpfs", room)
    for part in ("upper", "work", "root"):
        Path(room, part).mkdir()
    layer, _, below = image.rpartition(":")
    if layer:  # layers of one overlay may not lie in each other
        _do("cp", "-a", layer, f"{room}/layer")
        image = f"{room}/layer:{below}"
    root = f"{room}/root"
    _do("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={image},upperdir={room}/upper,workdir={room}/work", root)
    for folder in bound:
        Path(root + folder).mkdir(parents=True, exist_ok=True)
        _do("mount", "--bind", "-o", "ro", folder, root + folder)
    for folder in hidden:
        Path(root + folder).mkdir(parents=True, exist_ok=True)
        _do("mount", "-t", "tmpfs", "tmpfs", root + folder)
    _do("mount", "-t", "proc", "proc", f"{root}/proc")
    _do("mount", "--rbind", "/dev", f"{root}/dev")
    for folder in ("/dev/shm", "/run"):
        _do("mount", "-t", "tmpfs", "tmpfs", root + folder)
    os.chroot(root)
    os.chdir("/")


def _become_ec2(instance_id: str) -> None:
    """What cloud-init and others look for, and the ways to switch a machine off."""
    off, no = SHUTDOWN, "#!/bin/sh\nexit 1\n"
    for name, script in {"shutdown": off, "poweroff": off, "halt": off, "systemd-detect-virt": no}.items():  # the last: it is no container, it is a machine
        path = Path("/usr/local/sbin", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(script)
        path.chmod(0o755)
    dmi = Path("/sys/class/dmi/id")
    dmi.mkdir(parents=True, exist_ok=True)
    serial = "ec2" + instance_id.removeprefix("i-").ljust(29, "0")[:29]
    serial = "-".join((serial[:8], serial[8:12], serial[12:16], serial[16:20], serial[20:]))
    for name, text in {"product_uuid": serial, "product_serial": serial, "sys_vendor": "Amazon EC2", "chassis_asset_tag": "Amazon EC2"}.items():
        (dmi / name).write_text(text + "\n")


def _run(program: str, stopping: list) -> None:
    """The user data, until it ends or the machine is told to shut down: SIGTERM to all, a grace, and with our own end the kernel ends the rest."""
    main_process = subprocess.Popen([program], env={"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}, stdin=subprocess.DEVNULL, start_new_session=True)
    while main_process.poll() is None and not stopping:
        time.sleep(0.05)
    if stopping and _others():
        os.kill(-1, signal.SIGTERM)
        while time.monotonic() - stopping[0] < GRACE_SECONDS and _others():
            time.sleep(0.05)


def _others() -> bool:
    """Whether any process but ours lives; the dead ones are taken off the books."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _do(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
