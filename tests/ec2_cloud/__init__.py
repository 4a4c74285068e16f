"""EC2 for tests: moto keeps the books, and the machines are real.

Every instance boots its user data as root in namespaces of its own (processes, mounts, network, host name), over a throw-away copy of this
machine's file system, with IMDSv2 at its address and no network beyond it but the ports that it is told to reach. It really dies: by `shutdown`,
by TerminateInstances, by a spot interruption after its notice, or with its host.

    with running_cloud(folder) as cloud:
        cloud.client("ec2").run_instances(...)

`python -m tests.ec2_cloud --port 15000 --folder /tmp/cloud` is the same for hands. Root, Linux, unshare(1), setpriv(1) and ip(8) are needed.
"""

from tests.ec2_cloud.running import Ec2Cloud, running_cloud, why_not

__all__ = ["Ec2Cloud", "running_cloud", "why_not"]
