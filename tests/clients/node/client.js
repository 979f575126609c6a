// What kafkajs gets; see README.md.

import kafkajs from "kafkajs";

const PARTITIONS = 3;
const RECORDS = 120;
const SILENCE_MS_MAX = 40_000;

const [bootstrap, name] = process.argv.slice(2);
const kafka = new kafkajs.Kafka({ brokers: [bootstrap], logLevel: kafkajs.logLevel.NOTHING });

/** Runs a consumer until it has all that it is to have. */
async function read(settings, isEnough, begin) {
  const consumer = kafka.consumer({ maxWaitTimeInMs: 100, ...settings });
  await consumer.connect();
  await consumer.subscribe({ topics: [name], fromBeginning: true });
  const records = [];
  await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no more than ${records.length} records came`)), SILENCE_MS_MAX);
    consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error));
    const eachMessage = async ({ partition, message }) => {
      records.push({ partition, offset: Number(message.offset), value: message.value.toString() });
      if (isEnough(records)) {
        clearTimeout(timer);
        resolve();
      }
    };
    consumer.run({ eachMessage, autoCommit: false }).then(() => begin?.(consumer), reject);
  });
  return { consumer, records };
}

function say(kind, records) {
  records.sort((one, other) => one.partition - other.partition || one.offset - other.offset);
  for (const { partition, offset, value } of records) console.log(kind, partition, offset, value);
}

async function produce() {
  const producer = kafka.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
  await producer.connect();
  for (let from = 0; from < RECORDS; from += 30) {
    const messages = Array.from({ length: 30 }, (_, step) => {
      const index = from + step;
      return { partition: index % PARTITIONS, value: `record ${index} ${"x".repeat((index * 7) % 90)}` };
    });
    await producer.send({ topic: name, messages, compression: kafkajs.CompressionTypes.GZIP });
  }
  await producer.disconnect();
}

async function transact() {
  const producer = kafka.producer({
    transactionalId: name,
    maxInFlightRequests: 1,
    idempotent: true,
    createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
  });
  await producer.connect();
  for (const isCommitted of [true, false, true]) {
    const transaction = await producer.transaction();
    const messages = [0, 1, 2, 3].map((index) => ({ partition: 0, value: `committed ${isCommitted} ${index}` }));
    await transaction.send({ topic: name, messages });
    await (isCommitted ? transaction.commit() : transaction.abort());
  }
  await producer.disconnect();
}

async function readInAGroup(admin) {
  // Small fetches, so that there are many.
  const settings = { groupId: name, maxBytes: 4_000, maxBytesPerPartition: 1_000 };
  const { consumer, records } = await read(settings, (records) => records.length === RECORDS + 8);
  say("record", records);
  const ends = new Map(records.map(({ partition, offset }) => [partition, offset + 1]));
  await consumer.commitOffsets([...ends].map(([partition, end]) => ({ topic: name, partition, offset: String(end) })));
  await consumer.disconnect();
  const [{ partitions }] = await admin.fetchOffsets({ groupId: name, topics: [name] });
  partitions.sort((one, other) => one.partition - other.partition);
  for (const { partition, offset } of partitions) console.log("committed", partition, offset);
  const offsets = await admin.fetchTopicOffsets(name);
  offsets.sort((one, other) => one.partition - other.partition);
  for (const { partition, low, high } of offsets) console.log("watermarks", partition, low, high);
}

async function seek() {
  // Of each partition the record at an offset, and whatever comes before the seek is done.
  const begins = [7, 39, 21];
  const isSought = ({ partition, offset }) => offset === begins[partition];
  const isEnough = (records) => new Set(records.filter(isSought).map(({ partition }) => partition)).size === PARTITIONS;
  const seekAll = (consumer) =>
    begins.forEach((offset, partition) => consumer.seek({ topic: name, partition, offset: String(offset) }));
  const { consumer, records } = await read({ groupId: `${name}-seeks` }, isEnough, seekAll);
  await consumer.disconnect();
  const sought = begins.map((begin, partition) => records.find((each) => each.partition === partition && isSought(each)));
  say("seek", sought);
}

const admin = kafka.admin();
await admin.connect();
await admin.createTopics({ topics: [{ topic: name, numPartitions: PARTITIONS }], waitForLeaders: true });
await produce();
await transact();
await readInAGroup(admin);
await seek();
for (const { host, port } of (await admin.describeCluster()).brokers) console.log("node", host, port);
await admin.deleteTopics({ topics: [name] });
await admin.disconnect();
process.exit(0);
