"""What confluent-kafka (librdkafka) gets; see README.md."""

import sys
import time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS = 3
RECORDS = 120
SILENCE_S_MAX = 40


def poll(consumer):
    """The next record; fails where none comes."""
    deadline = time.monotonic() + SILENCE_S_MAX
    while time.monotonic() < deadline:
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error():
            raise RuntimeError(message.error())
        return message
    raise RuntimeError("no record came")


def say(kind, message):
    print(kind, message.partition(), message.offset(), message.value().decode())


def produce(bootstrap, name):
    producer = Producer({"bootstrap.servers": bootstrap, "compression.type": "zstd", "linger.ms": 20})
    for index in range(RECORDS):
        producer.produce(name, partition=index % PARTITIONS, value=f"record {index} " + "x" * (index * 7 % 90))
        if index % 30 == 29:
            producer.flush(30)
    if producer.flush(30) > 0:
        raise RuntimeError("not everything was produced")


def transact(bootstrap, name):
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": name})
    producer.init_transactions(60)
    for is_committed in (True, False, True):
        producer.begin_transaction()
        for index in range(4):
            producer.produce(name, partition=0, value=f"committed {is_committed} {index}")
        producer.flush(30)
        if is_committed:
            producer.commit_transaction(60)
        else:
            producer.abort_transaction(60)


def read_in_a_group(bootstrap, name):
    settings = {"bootstrap.servers": bootstrap, "group.id": name, "auto.offset.reset": "earliest"}
    settings |= {"enable.auto.commit": False, "fetch.wait.max.ms": 100, "isolation.level": "read_committed"}
    # Small fetches, so that there are many.
    consumer = Consumer(settings | {"fetch.message.max.bytes": 1000})
    consumer.subscribe([name])
    read = [poll(consumer) for _ in range(RECORDS + 8)]
    for message in sorted(read, key=lambda message: (message.partition(), message.offset())):
        say("record", message)
    consumer.commit(asynchronous=False)
    partitions = [TopicPartition(name, partition) for partition in range(PARTITIONS)]
    for partition in consumer.committed(partitions, timeout=30):
        print("committed", partition.partition, partition.offset)
    for partition in partitions:
        print("watermarks", partition.partition, *consumer.get_watermark_offsets(partition, timeout=30))
    consumer.close()


def seek(bootstrap, name):
    settings = {"bootstrap.servers": bootstrap, "group.id": name + "-seeks", "fetch.wait.max.ms": 100}
    consumer = Consumer(settings)
    for partition, offset in [(0, 7), (1, 39), (2, 0), (0, 20), (0, 7), (1, 11), (2, 38)]:
        consumer.assign([TopicPartition(name, partition, offset)])
        say("seek", poll(consumer))
    consumer.close()


def main():
    bootstrap, name = sys.argv[1:]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result(60)
    produce(bootstrap, name)
    transact(bootstrap, name)
    read_in_a_group(bootstrap, name)
    seek(bootstrap, name)
    for broker in admin.list_topics(timeout=30).brokers.values():
        print("node", broker.host, broker.port)
    admin.delete_topics([name])[name].result(60)


main()
