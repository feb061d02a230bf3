"""Produces orders, and consumes them in a group."""

import sys

from confluent_kafka import Consumer, KafkaException, Producer


def produce(bootstrap, topic, count):
    # acks=all is librdkafka's default; idempotence is not: with it a retry writes nothing twice.
    producer = Producer({
        "bootstrap.servers": bootstrap,
        "enable.idempotence": True,
        # For so long a record is tried again, for instance while leaders move.
        "delivery.timeout.ms": 30_000,
    })
    failures = []

    def told(error, _message):
        if error is not None:
            failures.append(error)

    for order in range(count):
        # One customer's orders have one key, so they are in one partition, in order.
        record = {"key": f"customer-{order % 5}", "value": f'{{"order":{order}}}', "headers": {"source": "python"}}
        while True:
            try:
                producer.produce(topic, on_delivery=told, **record)
                break
            except BufferError:
                # More is on its way than the client keeps: wait until some of it is told.
                producer.poll(0.1)
        producer.poll(0)
    producer.flush()
    if failures:
        sys.exit(f"{len(failures)} of {count} orders are not written, the first because of: {failures[0]}")


def consume(bootstrap, topic, group, count):
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    })
    consumer.subscribe([topic])
    try:
        while count > 0:
            handled = 0
            for message in consumer.consume(num_messages=100, timeout=1.0):
                if message.error() is None:
                    source = dict(message.headers())["source"]
                    print(message.key().decode(), message.value().decode(), source.decode())
                    handled += 1
                elif message.error().fatal():
                    raise KafkaException(message.error())
                else:
                    # The client tries again by itself.
                    print(message.error(), file=sys.stderr)
            if handled:
                commit(consumer)
                count -= handled
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    finally:
        # The group hears at once that this member is gone.
        consumer.close()


def commit(consumer):
    try:
        # Committed once they are handled: after a crash some orders come again, and none is left out.
        consumer.commit(asynchronous=False)
    except KafkaException as e:
        print(f"not committed, whoever has the partitions now gets the orders again: {e}", file=sys.stderr)


match sys.argv[1:]:
    case ["produce", bootstrap, topic, count]:
        produce(bootstrap, topic, int(count))
    case ["consume", bootstrap, topic, group, count]:
        consume(bootstrap, topic, group, int(count))
    case _:
        sys.exit("usage: orders.py produce BOOTSTRAP TOPIC COUNT | consume BOOTSTRAP TOPIC GROUP COUNT")
