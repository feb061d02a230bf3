"""The loop that both Python drivers share: one JSON request on the standard input, one JSON reply on the standard output (e2e/src/driver.rs)."""

import base64
import json
import sys


class KafkaFailure(Exception):
    """A failure with the code that Kafka gives it; -1 where there is none."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def decode(text):
    return None if text is None else base64.b64decode(text)


def encode(data):
    return None if data is None else base64.b64encode(data).decode()


def records_of(request):
    """The records of a produce request as (partition, key, value, headers, timestamp)."""
    for r in request.get("records") or []:
        headers = [(name, decode(value)) for name, value in r.get("headers") or []]
        yield r.get("partition"), decode(r.get("key")), decode(r.get("value")), headers, r.get("timestamp")
    generate = request.get("generate") or {"count": 0}
    for i in range(generate["count"]):
        value = b"%010d" % i
        yield None, b"k%d" % (i % generate["keys"]), value.ljust(generate["size"], b"x"), [], None


def serve(operations, failure_of):
    """Runs until the input ends. `failure_of` turns a client's exception into a KafkaFailure."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"ok": operations[request["op"]](request)}
        except Exception as e:  # whatever the client throws is the result of the request
            failure = e if isinstance(e, KafkaFailure) else failure_of(e)
            reply = {"error": {"code": failure.code, "message": str(failure)}}
        print(json.dumps(reply), flush=True)
