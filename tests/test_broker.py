"""What `runner.broker` promises: a message is sent once or told to be lost, and can be counted."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest
import redis
from kombu import Connection

from runner import connection, embedded
from runner.broker import Producer, queue_name
from runner.errors import BrokerUnavailable

DIGEST, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    """Give a plain client, to look into the queues."""
    client = connection.connect(redis_url, "test-raw")
    yield client
    client.close()


@pytest.fixture
def producer(redis_url: str, namespace: str, raw: redis.Redis) -> Iterator[Producer]:
    """Give a producer on the shared Redis."""
    producer = Producer(redis_url, namespace, raw)
    yield producer
    producer.close()


def queue(namespace: str, digest: str = DIGEST) -> str:
    """Return the key of a queue of the service `echo`."""
    return f"{namespace}:{queue_name('echo', digest)}"


# --- sending -------------------------------------------------------------------------------------


def test_one_send_is_one_message(producer: Producer, raw: redis.Redis, namespace: str) -> None:
    """A job goes into the queue of the very manifest it was validated against, and nowhere else."""
    producer.send("job-1", 2, "echo", DIGEST)
    assert raw.llen(queue(namespace)) == 1
    assert raw.llen(queue(namespace, OTHER)) == 0
    message = json.loads(raw.lindex(queue(namespace), 0))
    assert message["headers"]["id"] == "job-1.2"
    assert message["headers"]["task"] == "runner.run"


def test_who_has_another_seal_has_another_queue(
    producer: Producer, raw: redis.Redis, namespace: str, redis_url: str
) -> None:
    """Workers of another seal, or of none, are sent nothing; each sender sees its own queue."""
    sealing = Producer(redis_url, namespace, raw, "0123456789abcdef")
    sealing.send("job-1", 1, "echo", DIGEST)
    assert raw.llen(queue(namespace)) == 0
    assert raw.llen(f"{queue(namespace)}:0123456789abcdef") == 1
    assert producer.pending("echo", DIGEST) == set()
    assert sealing.pending("echo", DIGEST) == {("job-1", 1)}
    sealing.withdraw("echo", DIGEST, {("job-1", 1)})
    assert sealing.pending("echo", DIGEST) == set()
    sealing.close()


def test_a_message_holds_ids_and_no_document(
    producer: Producer, raw: redis.Redis, namespace: str
) -> None:
    """What a queue is read for, by people and by tools, tells nothing of the texts."""
    producer.send("job-1", 1, "echo", DIGEST)
    body = raw.lindex(queue(namespace), 0)
    assert len(body) < 2000
    assert json.loads(body)["content-type"] == "application/json"


def test_the_first_that_is_sent_is_the_first_to_be_taken(
    producer: Producer, raw: redis.Redis, namespace: str
) -> None:
    """A queue is a queue."""
    for number in range(5):
        producer.send(f"job-{number}", 1, "echo", DIGEST)
    taken = [json.loads(raw.rpop(queue(namespace)))["headers"]["id"] for _ in range(5)]
    assert taken == [f"job-{number}.1" for number in range(5)]


# --- what is still there -------------------------------------------------------------------------


def test_what_was_sent_is_pending(producer: Producer) -> None:
    """Each message is seen as (job, attempt), by service and digest."""
    producer.send("job-1", 1, "echo", DIGEST)
    producer.send("job.with.dots", 12, "echo", DIGEST)
    producer.send("job-3", 1, "echo", OTHER)
    producer.send("job-4", 1, "other", DIGEST)
    assert producer.pending("echo", DIGEST) == {("job-1", 1), ("job.with.dots", 12)}


def test_what_a_worker_holds_is_pending_too(
    producer: Producer, raw: redis.Redis, namespace: str
) -> None:
    """A message that a worker has taken and not acknowledged is not lost."""
    producer.send("job-1", 1, "echo", DIGEST)
    taken = json.loads(raw.rpop(queue(namespace)))
    raw.hset(f"{namespace}:echo:unacked", "tag-1", json.dumps([taken, "exchange", "key"]))
    assert producer.pending("echo", DIGEST) == {("job-1", 1)}


GARBAGE = [
    b"", b"certainly", b"\xff\xfe", b"[]", b"{}", b"null", b'"text"', b"12", b"[" * 100_000,
    b'{"headers": null}', b'{"headers": {"id": null}}', b'{"headers": {"id": 12}}',
    b'{"headers": {"id": "no-attempt"}}', b'{"headers": {"id": "job.one"}}',
    b'{"headers": {"id": "job.' + b"9" * 5000 + b'"}}', b"[[], 1]", b"[null]",
]  # fmt: skip


def test_garbage_in_a_queue_is_passed_over(
    producer: Producer, raw: redis.Redis, namespace: str
) -> None:
    """What nobody of ours sent hides no message, and is no message."""
    for number, body in enumerate(GARBAGE):
        raw.lpush(queue(namespace), body)
        raw.hset(f"{namespace}:echo:unacked", str(number), body)
    producer.send("job-1", 1, "echo", DIGEST)
    assert producer.pending("echo", DIGEST) == {("job-1", 1)}


def test_messages_can_be_taken_back(producer: Producer, raw: redis.Redis, namespace: str) -> None:
    """Only those that were named go; what is not there does not matter."""
    for number in range(3):
        producer.send(f"job-{number}", 1, "echo", DIGEST)
    producer.withdraw("echo", DIGEST, {("job-1", 1), ("job-2", 2), ("gone", 1)})
    assert producer.pending("echo", DIGEST) == {("job-0", 1), ("job-2", 1)}


# --- a Redis that is not there -------------------------------------------------------------------


@pytest.fixture(params=["closed", "silent"])
def nobody(request: pytest.FixtureRequest) -> Iterator[str]:
    """Give the URL of a port that is closed, and of one where nobody ever answers."""
    if request.param == "closed":
        yield f"redis://127.0.0.1:{embedded.free_port()}/0"
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


def test_a_dead_redis_is_told_within_seconds(nobody: str, namespace: str) -> None:
    """Whoever sends learns soon that nothing was taken, and hangs at no time."""
    client = connection.connect(nobody, "test", timeout=1)
    producer = Producer(nobody, namespace, client)
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="Redis did not take the message"):
        producer.send("job-1", 1, "echo", DIGEST)
    assert time.monotonic() - began < 4
    producer.close()
    client.close()


def test_a_redis_that_comes_back_is_used_again(
    tmp_path_factory: pytest.TempPathFactory, namespace: str
) -> None:
    """After an outage the same producer sends again, without a second of its own."""
    folder, port = tmp_path_factory.mktemp("redis"), embedded.free_port()
    url = f"redis://127.0.0.1:{port}/0"
    client = connection.connect(url, "test", timeout=2)
    producer = Producer(url, namespace, client)
    with embedded.running_redis(folder, port):
        producer.send("job-1", 1, "echo", DIGEST)
    with pytest.raises(BrokerUnavailable):
        producer.send("job-2", 1, "echo", DIGEST)
    with embedded.running_redis(folder, port):
        producer.send("job-3", 1, "echo", DIGEST)
        assert producer.pending("echo", DIGEST) == {("job-1", 1), ("job-3", 1)}
    producer.close()
    client.close()


def test_a_channel_keeps_its_client_as_long_as_its_connections(redis_url: str) -> None:
    """All commands go through one client, and after a fork or a loss through another."""
    with Connection(redis_url, transport="runner.transport:Transport") as broker:
        channel = broker.channel()
        with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
            assert first is second
        channel._after_fork()
        with channel.conn_or_acquire() as third:
            assert third is not first
            assert third.ping()
