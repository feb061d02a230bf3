"""`weir local` in a directory of its own, and the table of what was measured with it: what figures, groups and transactions have in common."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import time

from wire import list_offsets

HERE = pathlib.Path(__file__).resolve().parent
TARGET = HERE.parent.parent / "target"
TICKS = os.sysconf("SC_CLK_TCK")
SERVES_WITHIN_S = 60


class Cluster:
    """`weir local` in a directory of its own."""

    def __init__(self, weir, flush_mode, brokers=1, config=None):
        self.weir = str(weir)
        self.brokers = brokers
        self.config = {"flush.mode": flush_mode, **(config or {})}
        self.folder = tempfile.TemporaryDirectory(prefix="weir-figures-")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.apply_at_start()

    def apply_at_start(self):
        resources = pathlib.Path(self.folder.name, "cluster.yaml")
        resources.write_text(
            "apiVersion: weir.dev/v1alpha1\nkind: KafkaCluster\nmetadata: {name: figures}\n"
            f"spec: {{brokers: {{replicas: {self.brokers}}}, config: {json.dumps(self.config)}}}\n"
        )
        self.local("up", "--detach", "--port", str(self.port), "-f", str(resources))

    def local(self, *arguments):
        command = [self.weir, "local", *arguments, "--data", f"{self.folder.name}/data"]
        return subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout

    def status(self):
        return json.loads(self.local("status", "-o", "json"))

    def pids(self):
        return [broker["pid"] for broker in self.status()["brokers"]]

    def pid(self):
        return self.pids()[0]

    def bootstrap(self):
        return ",".join(f"127.0.0.1:{self.port + broker}" for broker in range(self.brokers))

    def whole(self):
        """Waits until every replica is in sync."""
        deadline = time.monotonic() + SERVES_WITHIN_S
        while time.monotonic() < deadline:
            partitions = self.status()["partitions"]
            if partitions and partitions["underReplicated"] == partitions["offline"] == 0:
                return
            time.sleep(0.05)
        raise TimeoutError("the cluster is not whole again")

    def topic(self, name, partitions):
        file = pathlib.Path(self.folder.name, "topic.yaml")
        file.write_text(
            f"apiVersion: weir.dev/v1alpha1\nkind: Topic\nmetadata: {{name: {name}}}\n"
            f"spec: {{clusterRef: {{name: figures}}, partitions: {partitions}, replicas: {min(3, self.brokers)}"
            f", config: {{min.insync.replicas: {min(2, self.brokers)}}}}}\n"
        )
        self.local("apply", "-f", str(file))
        if self.brokers == 1:
            self.serves(name, partitions)
        else:
            self.whole()

    def serves(self, topic, partitions):
        """Waits until every partition of a topic has a leader that answers; returns the time at which it was so."""
        deadline = time.monotonic() + SERVES_WITHIN_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if all(code == 0 for code in list_offsets(("127.0.0.1", self.port), topic, partitions)):
                    return time.monotonic()
            time.sleep(0.001)
        raise TimeoutError(f"{topic} is not served")

    def rss_mb(self):
        for line in pathlib.Path(f"/proc/{self.pid()}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024 / 1e6
        return None

    def cpu_s(self):
        """Of all brokers together."""
        return cpu_s(self.pids())

    def close(self):
        self.local("down")
        self.folder.cleanup()


def cpu_s(pids):
    """The processor time of these processes so far, user and system."""
    stats = [pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids]
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / TICKS


def report(figures):
    """Prints a table of what is measured as it comes, and then the same as one line of JSON."""
    result = []
    for what, value, unit in figures:
        print(f"{what:110} {value:12.2f} {unit}", flush=True)
        result.append({"figure": what, "value": round(value, 3), "unit": unit})
    print(json.dumps(result))
