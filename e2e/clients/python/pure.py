"""kafka-python: a client without librdkafka underneath."""

import re
import sys
import time

import kafka
from kafka.admin import AlterConfigOp, ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from driver import KafkaFailure, encode, records_of, serve

BOOTSTRAP = sys.argv[1]
SPECIALS = {"earliest": -2, "latest": -1, "max_timestamp": -3}

admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)


def failure_of(e):
    code = getattr(e, "errno", -1) if isinstance(e, KafkaError) else -1
    return KafkaFailure(code, repr(e))


def produce(request):
    acks = request.get("acks", "all")
    timeout_ms = request.get("timeout_ms", 60_000)
    producer = kafka.KafkaProducer(
        bootstrap_servers=BOOTSTRAP,
        acks=acks if acks == "all" else int(acks),
        enable_idempotence=request.get("idempotent", False),
        compression_type=None if request.get("compression", "none") == "none" else request["compression"],
        linger_ms=request.get("linger_ms", 0),
        max_request_size=64 << 20,
        max_block_ms=timeout_ms,
        delivery_timeout_ms=timeout_ms,
        # The client's own default. A producer without idempotence appends a request twice whose
        # answer comes later, for instance while the disk of a busy machine is flushed.
        request_timeout_ms=min(30_000, timeout_ms),
    )
    try:
        sent = [
            producer.send(request["topic"], value, key, headers, partition, timestamp)
            for partition, key, value, headers, timestamp in records_of(request)
        ]
        producer.flush(timeout_ms / 500)
        done = [future.get(timeout_ms / 1000) for future in sent]
        return {"offsets": [[r.partition, r.offset] for r in done]}
    finally:
        producer.close(5)


def consumer():
    return kafka.KafkaConsumer(bootstrap_servers=BOOTSTRAP, group_id=None, enable_auto_commit=False, auto_offset_reset="none")


def consumed(r):
    return {
        "partition": r.partition,
        "offset": r.offset,
        "timestamp": r.timestamp,
        "key": encode(r.key),
        "value": encode(r.value),
        "headers": [[name, encode(value)] for name, value in r.headers],
    }


def consume(request):
    c = consumer()
    try:
        partitions = [TopicPartition(request["topic"], p) for p in request["partitions"]]
        c.assign(partitions)
        if request["from"] == "beginning":
            c.seek_to_beginning(*partitions)
        elif request["from"] == "end":
            c.seek_to_end(*partitions)
        else:
            for p in partitions:
                c.seek(p, request["from"])
        records = []
        deadline = time.monotonic() + request.get("timeout_ms", 20_000) / 1000
        while len(records) < request["count"] and time.monotonic() < deadline:
            for batch in c.poll(200, 10_000).values():
                records.extend(consumed(r) for r in batch)
        return records
    finally:
        c.close()


members = {}


def join(request):
    extra = {}
    if request.get("instance"):
        extra["group_instance_id"] = request["instance"]
    members[request["member"]] = kafka.KafkaConsumer(
        *request["topics"],
        bootstrap_servers=BOOTSTRAP,
        group_id=request["group"],
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=request.get("session_ms") or 6_000,
        heartbeat_interval_ms=500,
        **extra,
    )
    return {}


def poll(request):
    c = members[request["member"]]
    records = []
    deadline = time.monotonic() + request.get("timeout_ms", 200) / 1000
    while True:
        for batch in c.poll(100, 10_000).values():
            records.extend(consumed(r) for r in batch)
        if len(records) >= request.get("count", 0) or time.monotonic() > deadline:
            break
    return {"records": records, "assigned": [[p.topic, p.partition] for p in c.assignment()]}


def commit(request):
    members[request["member"]].commit()
    return {}


def leave(request):
    members.pop(request["member"]).close(autocommit=False)
    return {}


def offset_for_time(request):
    c = consumer()
    try:
        p = TopicPartition(request["topic"], request["partition"])
        found = c.offsets_for_times({p: request["timestamp"]})[p]
        return {"offset": -1 if found is None else found.offset}
    finally:
        c.close()


def create_topic(request):
    spec = {"num_partitions": request.get("partitions", -1), "replication_factor": request.get("replicas", -1)}
    admin.create_topics({request["topic"]: {**spec, "configs": request.get("configs") or {}}})
    return {}


def delete_topic(request):
    admin.delete_topics([request["topic"]])
    return {}


def describe_topic(request):
    [topic] = admin.describe_topics([request["topic"]])
    if topic["error_code"]:
        raise KafkaFailure(topic["error_code"], "describe_topics")
    partitions = [
        {"partition": p["partition_index"], "leader": p["leader_id"], "replicas": len(p["replica_nodes"]), "isr": len(p["isr_nodes"])}
        for p in topic["partitions"]
    ]
    return {"partitions": sorted(partitions, key=lambda p: p["partition"])}


def create_partitions(request):
    admin.create_partitions({request["topic"]: request["partitions"]})
    return {}


def resource(request, configs=None):
    return ConfigResource(ConfigResourceType[request["type"].upper()], request["name"], configs)


def describe_configs(request):
    described = admin.describe_configs([resource(request)], include_synonyms=True, config_filter="all")
    return described[request["type"]][request["name"]]


def alter_configs(request):
    ops = {key: (AlterConfigOp[op.upper()], value) for op, key, value in request["ops"]}
    result = admin.alter_configs([resource(request, ops)], raise_on_unknown=False)[request["type"]][request["name"]]
    if result != "OK":
        # It is text here, with the code in front.
        raise KafkaFailure(int(re.match(r"\[Error (\d+)\]", result).group(1)), result)
    return {}


def delete_records(request):
    p = TopicPartition(request["topic"], request["partition"])
    return {"low_watermark": admin.delete_records({p: request["offset"]})[p]["low_watermark"]}


def list_offsets(request):
    p = TopicPartition(request["topic"], request["partition"])
    found = admin.list_partition_offsets({p: SPECIALS.get(request["at"], request["at"])})[p]
    return {"offset": found.offset, "timestamp": found.timestamp}


def describe_cluster(_request):
    cluster = admin.describe_cluster()
    nodes = [{"id": n["broker_id"], "host": n["host"], "port": n["port"]} for n in cluster["brokers"]]
    return {"cluster_id": cluster["cluster_id"], "controller": cluster["controller_id"], "nodes": nodes}


def describe_log_dirs(request):
    sizes = {}
    for broker in admin.describe_log_dirs():
        for directory in broker["log_dirs"]:
            for topic in directory["topics"]:
                if topic["name"] == request["topic"]:
                    sizes.update({str(p["partition_index"]): p["partition_size"] for p in topic["partitions"]})
    return sizes


serve(
    {
        "produce": produce,
        "consume": consume,
        "join": join,
        "poll": poll,
        "commit": commit,
        "leave": leave,
        "offset_for_time": offset_for_time,
        "create_topic": create_topic,
        "delete_topic": delete_topic,
        "list_topics": lambda _: list(admin.list_topics()),
        "describe_topic": describe_topic,
        "create_partitions": create_partitions,
        "describe_configs": describe_configs,
        "alter_configs": alter_configs,
        "delete_records": delete_records,
        "list_offsets": list_offsets,
        "describe_cluster": describe_cluster,
        "describe_log_dirs": describe_log_dirs,
    },
    failure_of,
)
