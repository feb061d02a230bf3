"""librdkafka, through confluent-kafka."""

import sys
import time

import confluent_kafka
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from driver import KafkaFailure, encode, records_of, serve

BOOTSTRAP = sys.argv[1]
TIMEOUT_S = 20
# librdkafka's own checks stand in for the broker's: their codes are negative.
LOCAL_CODES = {
    confluent_kafka.KafkaError.MSG_SIZE_TOO_LARGE: 10,
    confluent_kafka.KafkaError._UNKNOWN_TOPIC: 3,
    confluent_kafka.KafkaError._UNKNOWN_PARTITION: 3,
}
# FENCED_INSTANCE_ID, UNRELEASED_INSTANCE_ID.
FATAL_CODES = [82, 111]

admin = AdminClient({"bootstrap.servers": BOOTSTRAP})


def failure_of(e):
    if isinstance(e, KafkaException):
        error = e.args[0]
        if error.code() == confluent_kafka.KafkaError._FATAL:
            # What made it fatal is told in words alone.
            for code in FATAL_CODES:
                if confluent_kafka.KafkaError(code).str() in error.str():
                    return KafkaFailure(code, str(error))
        return KafkaFailure(LOCAL_CODES.get(error.code(), error.code()), str(error))
    return KafkaFailure(-1, repr(e))


def produce(request):
    producer = Producer(
        {
            "bootstrap.servers": BOOTSTRAP,
            "acks": request.get("acks", "all"),
            "enable.idempotence": request.get("idempotent", False),
            "compression.type": request.get("compression", "none"),
            "linger.ms": request.get("linger_ms", 0),
            "message.max.bytes": 64 << 20,
            "message.timeout.ms": request.get("timeout_ms", 20_000),
            "topic.metadata.propagation.max.ms": 3_000,
            "queue.buffering.max.messages": 1_000_000,
            # Java's hash of the key, so that every client puts a key into the same partition.
            "partitioner": "murmur2_random",
        }
    )
    delivered = []

    def report(slot):
        def on_delivery(error, message):
            # With acks=0 nobody knows the offset.
            delivered[slot] = error or [message.partition(), -1 if message.offset() is None else message.offset()]

        return on_delivery

    for partition, key, value, headers, timestamp in records_of(request):
        delivered.append(None)
        extra = {} if timestamp is None else {"timestamp": timestamp}
        if partition is not None:
            extra["partition"] = partition
        producer.produce(request["topic"], value, key, headers=headers, on_delivery=report(len(delivered) - 1), **extra)
        producer.poll(0)
    # What takes longer than a record may take has been given up by then.
    producer.flush(request.get("timeout_ms", 20_000) / 1000 + TIMEOUT_S)
    for one in delivered:
        if one is None:
            raise KafkaFailure(-1, "not delivered in time")
        if not isinstance(one, list):
            raise KafkaException(one)
    return {"offsets": delivered}


def consumer(read_committed=False):
    return Consumer(
        {
            "isolation.level": "read_committed" if read_committed else "read_uncommitted",
            "bootstrap.servers": BOOTSTRAP,
            "group.id": "none",
            "enable.auto.commit": False,
            "enable.partition.eof": False,
            "auto.offset.reset": "error",
            "check.crcs": True,
        }
    )


def consumed(m):
    return {
        "partition": m.partition(),
        "offset": m.offset(),
        "timestamp": m.timestamp()[1],
        "key": encode(m.key()),
        "value": encode(m.value()),
        "headers": [[name, encode(value)] for name, value in m.headers() or []],
    }


def consume(request):
    start = {"beginning": confluent_kafka.OFFSET_BEGINNING, "end": confluent_kafka.OFFSET_END}.get(request["from"], request["from"])
    c = consumer(request.get("read_committed", False))
    try:
        c.assign([TopicPartition(request["topic"], p, start) for p in request["partitions"]])
        records = []
        deadline = time.monotonic() + request.get("timeout_ms", 20_000) / 1000
        while len(records) < request["count"] and time.monotonic() < deadline:
            for m in c.consume(1000, 0.2):
                if m.error():
                    raise KafkaException(m.error())
                records.append(consumed(m))
        return records
    finally:
        c.close()


members = {}


def join(request):
    config = {
        "bootstrap.servers": BOOTSTRAP,
        "group.id": request["group"],
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
    }
    if request.get("protocol") == "consumer":
        config["group.protocol"] = "consumer"
        if request.get("assignor"):
            config["group.remote.assignor"] = request["assignor"]
    else:
        config.update({"session.timeout.ms": request.get("session_ms") or 6_000, "heartbeat.interval.ms": 500})
        if request.get("assignor"):
            config["partition.assignment.strategy"] = request["assignor"]
    if request.get("instance"):
        config["group.instance.id"] = request["instance"]
    if request.get("rack"):
        config["client.rack"] = request["rack"]
    members[request["member"]] = c = Consumer(config)
    c.subscribe([request["pattern"]] if request.get("pattern") else request["topics"])
    return {}


def poll(request):
    c = members[request["member"]]
    records = []
    deadline = time.monotonic() + request.get("timeout_ms", 200) / 1000
    while True:
        for m in c.consume(1000, 0.1):
            # A topic that is not known yet becomes known.
            if m.error() is None:
                records.append(consumed(m))
            elif m.error().code() != confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise KafkaException(m.error())
        if len(records) >= request.get("count", 0) or time.monotonic() > deadline:
            break
    return {"records": records, "assigned": [[p.topic, p.partition] for p in c.assignment()]}


def commit(request):
    members[request["member"]].commit(asynchronous=False)
    return {}


def leave(request):
    members.pop(request["member"]).close()
    return {}


producers = {}


def transactional_producer(request):
    producer = Producer(
        {
            "bootstrap.servers": BOOTSTRAP,
            "transactional.id": request["id"],
            "transaction.timeout.ms": request.get("transaction_timeout_ms", 60_000),
        }
    )
    producer.init_transactions(TIMEOUT_S)
    return producer


def transactional(request):
    producers[request["producer"]] = transactional_producer(request)
    return {}


def transact(request):
    producer = producers[request["producer"]]
    # One that was left open goes on.
    if not request.get("open"):
        producer.begin_transaction()
    failed = []
    for value in request["values"]:
        producer.produce(
            request["topic"], value, partition=request.get("partition", 0), on_delivery=lambda error, _: failed.append(error) if error else None
        )
    producer.flush(TIMEOUT_S)
    if failed:
        raise KafkaException(failed[0])
    if request["end"] == "commit":
        producer.commit_transaction(TIMEOUT_S)
    elif request["end"] == "abort":
        producer.abort_transaction(TIMEOUT_S)
    return {}


def transform(request):
    """Copies records of one topic into another, a transaction for each poll, until so many are copied."""
    c = Consumer(
        {
            "bootstrap.servers": BOOTSTRAP,
            "group.id": request["group"],
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "session.timeout.ms": 6_000,
        }
    )
    c.subscribe([request["from_topic"]])
    producer = transactional_producer(request)
    copied, deadline = 0, time.monotonic() + request.get("timeout_ms", 60_000) / 1000
    try:
        while copied < request["count"] and time.monotonic() < deadline:
            records = [m for m in c.consume(7, 0.5) if m.error() is None]
            if not records:
                continue
            try:
                producer.begin_transaction()
                for m in records:
                    producer.produce(request["to"], m.value(), m.key(), partition=m.partition())
                offsets = [TopicPartition(m.topic(), m.partition(), m.offset() + 1) for m in records]
                producer.send_offsets_to_transaction(c.position(c.assignment()) or offsets, c.consumer_group_metadata(), TIMEOUT_S)
                producer.commit_transaction(TIMEOUT_S)
                copied += len(records)
            except KafkaException as e:
                if e.args[0].txn_requires_abort():
                    producer.abort_transaction(TIMEOUT_S)
                else:
                    producer = transactional_producer(request)
                for p in c.committed(c.assignment(), TIMEOUT_S):
                    c.seek(TopicPartition(p.topic, p.partition, p.offset if p.offset >= 0 else confluent_kafka.OFFSET_BEGINNING))
    finally:
        c.close()
    return {"copied": copied}


def offset_for_time(request):
    c = consumer()
    try:
        [found] = c.offsets_for_times([TopicPartition(request["topic"], request["partition"], request["timestamp"])], TIMEOUT_S)
        return {"offset": found.offset if found.offset >= 0 else -1}
    finally:
        c.close()


def only(futures):
    [future] = futures.values()
    return future.result(TIMEOUT_S)


def create_topic(request):
    topic = NewTopic(request["topic"], request.get("partitions", -1), request.get("replicas", -1), config=request.get("configs") or {})
    only(admin.create_topics([topic]))
    return {}


def delete_topic(request):
    only(admin.delete_topics([request["topic"]]))
    return {}


def describe_topic(request):
    topic = only(admin.describe_topics(confluent_kafka.TopicCollection([request["topic"]])))
    partitions = [{"partition": p.id, "leader": p.leader.id, "replicas": len(p.replicas), "isr": len(p.isr)} for p in topic.partitions]
    return {"partitions": partitions}


def create_partitions(request):
    only(admin.create_partitions([NewPartitions(request["topic"], request["partitions"])]))
    return {}


def resource(request, entries=None):
    return ConfigResource(ResourceType[request["type"].upper()], request["name"], incremental_configs=entries)


def describe_configs(request):
    entries = only(admin.describe_configs([resource(request)]))
    return {e.name: {"value": e.value, "source": e.source, "synonyms": list(e.synonyms)} for e in entries.values()}


def alter_configs(request):
    entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType[op.upper()]) for op, key, value in request["ops"]]
    only(admin.incremental_alter_configs([resource(request, entries)]))
    return {}


def delete_records(request):
    deleted = only(admin.delete_records([TopicPartition(request["topic"], request["partition"], request["offset"])]))
    return {"low_watermark": deleted.low_watermark}


def list_offsets(request):
    specials = {"earliest": OffsetSpec.earliest, "latest": OffsetSpec.latest, "max_timestamp": OffsetSpec.max_timestamp}
    at = request["at"]
    spec = specials[at]() if at in specials else OffsetSpec.for_timestamp(int(at))
    found = only(admin.list_offsets({TopicPartition(request["topic"], request["partition"]): spec}))
    return {"offset": found.offset, "timestamp": found.timestamp}


def describe_cluster(_request):
    cluster = admin.describe_cluster().result(TIMEOUT_S)
    nodes = [{"id": n.id, "host": n.host, "port": n.port} for n in cluster.nodes]
    return {"cluster_id": cluster.cluster_id, "controller": cluster.controller.id, "nodes": nodes}


serve(
    {
        "produce": produce,
        "consume": consume,
        "join": join,
        "poll": poll,
        "commit": commit,
        "leave": leave,
        "transactional": transactional,
        "transact": transact,
        "transform": transform,
        "offset_for_time": offset_for_time,
        "create_topic": create_topic,
        "delete_topic": delete_topic,
        "list_topics": lambda _: list(admin.list_topics(timeout=TIMEOUT_S).topics),
        "describe_topic": describe_topic,
        "create_partitions": create_partitions,
        "describe_configs": describe_configs,
        "alter_configs": alter_configs,
        "delete_records": delete_records,
        "list_offsets": list_offsets,
        "describe_cluster": describe_cluster,
    },
    failure_of,
)
