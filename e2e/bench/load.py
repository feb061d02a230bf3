"""A producer that is watched while brokers come and go: what e2e/bench/probe and e2e/bench/kubernetes measure with."""

import bisect
import sys
import threading
import time

from confluent_kafka import Producer


class Load:
    """One record after the other, each sent when the one before it is acknowledged: idempotent, acks=all, librdkafka's own defaults but for back-offs of 10 to 100 ms."""

    def __init__(self, bootstrap, topic, timeout_ms=60_000):
        self.topic = topic
        self.producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 0,
                "retry.backoff.ms": 10,
                "retry.backoff.max.ms": 100,
                "reconnect.backoff.ms": 10,
                "reconnect.backoff.max.ms": 100,
                "topic.metadata.refresh.fast.interval.ms": 20,
                "socket.timeout.ms": timeout_ms,
                # That brokers go is what is measured: nobody needs to be told of it.
                "log_level": 2,
            }
        )
        self.acknowledged = []
        self.errors = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stop.is_set():
            done = []
            self.producer.produce(self.topic, b"x" * 100, partition=0, on_delivery=lambda error, _: done.append(error))
            while not done:
                self.producer.poll(0.1)
            self.errors += done[0] is not None
            self.acknowledged.append(time.monotonic())

    def next_after(self, moment):
        deadline = time.monotonic() + 60
        while not self.acknowledged or self.acknowledged[-1] <= moment:
            if time.monotonic() > deadline:
                sys.exit("nothing is acknowledged any more")
            time.sleep(0.001)
        return self.acknowledged[self.acknowledged_before(moment)]

    def acknowledged_before(self, moment):
        """How many records were acknowledged by then."""
        return bisect.bisect_right(self.acknowledged, moment)

    def leader(self):
        return self.producer.list_topics(self.topic, timeout=30).topics[self.topic].partitions[0].leader

    def longest_since(self, begin):
        """The longest time without an acknowledgement, in milliseconds, from the one before the record with this number on."""
        moments = self.acknowledged[max(begin - 1, 0) :]
        return max(b - a for a, b in zip(moments, moments[1:])) * 1000

    def finish(self):
        self.stop.set()
        self.thread.join()
