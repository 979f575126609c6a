import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.stream.Collectors;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ElectionNotNeededException;
import org.apache.kafka.common.errors.PreferredLeaderNotAvailableException;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Does to a Kafka what the commands on stdin say, one a line, so that one start of a JVM does much work.
 *
 * <p>Usage: {@code java -cp CLASSPATH TopicWriter.java BOOTSTRAP}. To each command it answers one line on stdout, {@code ok
 * COMMAND …} or {@code error COMMAND: …}, and goes on; at the end of stdin it exits with 0, or with 1 after an error.
 *
 * <pre>
 * create NAME PARTITIONS [key=value…]      ok create NAME TOPIC_ID
 * create-on NAME NODE,NODE… [key=value…]   ok create-on NAME TOPIC_ID           (one partition, its replicas, the first leads)
 * move NAME PARTITION NODE,NODE…           ok move NAME PARTITION NODE,NODE…    (its replicas; the first leads in the end)
 * elect preferred|unclean NAME PARTITION   ok elect unclean NAME PARTITION
 * config NAME key=value…                   ok config NAME
 * produce NAME PARTITION CODEC COUNT BATCH_RECORDS SEED [headers] [nullkeys] [nullvalues] [keys=N] [size=N]
 *                                          ok produce NAME PARTITION FIRST_OFFSET LAST_OFFSET
 * transaction commit|abort|open NAME PARTITION COUNT TXID [SEED]
 *                                          ok transaction commit NAME PARTITION FIRST_OFFSET LAST_OFFSET
 * end-transaction commit|abort TXID        ok end-transaction commit TXID       (of one left open)
 * delete-records NAME PARTITION BEFORE     ok delete-records NAME PARTITION LOG_START_OFFSET
 * delete NAME                              ok delete NAME
 * let-read NAME USER, no-longer-let-read NAME USER   ok let-read NAME USER      (an ACL, for brokers that have an authorizer)
 * start-offsets NAME, end-offsets NAME     ok end-offsets NAME 0=OFFSET 1=OFFSET …
 * </pre>
 *
 * <p>CODEC is none, gzip, snappy, lz4 or zstd. Records are a function of SEED and of their index I within the command, from 0:
 * <ul>
 * <li>key: {@code key-SEED-I}; with keys=N {@code key-J} where J = I mod N, which gives the cleaner something to compact; with
 *     nullkeys null where I mod 3 = 1;
 * <li>value: {@code value-SEED-I-} followed by L letters a…z, where h = splitmix64(SEED × 1 000 003 + I), L = h mod 256 (all
 *     unsigned) or N with size=N, and letter K is that of (h rotated right by K bits) mod 26; with nullvalues null where I mod 5 = 2;
 * <li>timestamp: 1 700 000 000 000 + 10 × I milliseconds;
 * <li>headers, with headers: {@code index} = I in decimal, {@code empty} = no bytes, {@code none} = null.
 * </ul>
 * The records of a transaction have neither headers nor nulls.
 */
public class TopicWriter {
    private static final long FIRST_TIMESTAMP_MS = 1_700_000_000_000L;
    private static final long TIMESTAMP_STEP_MS = 10;
    /** How long replicas may take to move. */
    private static final long MOVE_MS_MAX = 60_000;

    private final String bootstrap;
    private final Admin admin;
    private final Map<String, KafkaProducer<byte[], byte[]>> producers = new HashMap<>();
    private final Map<String, KafkaProducer<byte[], byte[]>> openTransactions = new HashMap<>();

    private TopicWriter(String bootstrap) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    public static void main(String[] args) throws Exception {
        if (args.length != 1) {
            System.err.println("usage: TopicWriter BOOTSTRAP, commands on stdin");
            System.exit(2);
        }
        PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        boolean failed = false;
        TopicWriter writer = new TopicWriter(args[0]);
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            if (line.isBlank()) {
                continue;
            }
            try {
                out.println("ok " + writer.run(line.trim().split("\\s+")));
            } catch (Exception e) {
                failed = true;
                Throwable cause = e instanceof ExecutionException && e.getCause() != null ? e.getCause() : e;
                out.println("error " + line.trim() + ": " + cause.toString().replace('\n', ' '));
            }
        }
        writer.close();
        System.exit(failed ? 1 : 0);
    }

    private String run(String[] words) throws Exception {
        switch (words[0]) {
            case "create": return create(words);
            case "create-on": return createOn(words);
            case "move": return move(words);
            case "elect": return elect(words);
            case "config": return config(words);
            case "produce": return produce(words);
            case "transaction": return transaction(words);
            case "end-transaction": return endTransaction(words);
            case "delete-records": return deleteRecords(words);
            case "delete":
                need(words, 2, "delete NAME");
                admin.deleteTopics(List.of(words[1])).all().get();
                return "delete " + words[1];
            case "let-read":
                need(words, 3, "let-read NAME USER");
                admin.createAcls(List.of(mayRead(words[1], words[2]))).all().get();
                return String.join(" ", words);
            case "no-longer-let-read":
                need(words, 3, "no-longer-let-read NAME USER");
                admin.deleteAcls(List.of(mayRead(words[1], words[2]).toFilter())).all().get();
                return String.join(" ", words);
            case "start-offsets": return offsets(words, OffsetSpec.earliest());
            case "end-offsets": return offsets(words, OffsetSpec.latest());
            default: throw new IllegalArgumentException("unknown command");
        }
    }

    private String create(String[] words) throws Exception {
        need(words, 3, "create NAME PARTITIONS [key=value…]");
        // As many replicas as the broker's own default says: 1 for a single node.
        NewTopic topic = new NewTopic(words[1], Optional.of(Integer.parseInt(words[2])), Optional.empty());
        topic.configs(settings(words, 3));
        return "create " + words[1] + " " + admin.createTopics(List.of(topic)).topicId(words[1]).get();
    }

    private String createOn(String[] words) throws Exception {
        need(words, 3, "create-on NAME NODE,NODE… [key=value…]");
        NewTopic topic = new NewTopic(words[1], Map.of(0, nodes(words[2])));
        topic.configs(settings(words, 3));
        return "create-on " + words[1] + " " + admin.createTopics(List.of(topic)).topicId(words[1]).get();
    }

    private String move(String[] words) throws Exception {
        need(words, 4, "move NAME PARTITION NODE,NODE…");
        TopicPartition partition = new TopicPartition(words[1], Integer.parseInt(words[2]));
        NewPartitionReassignment target = new NewPartitionReassignment(nodes(words[3]));
        admin.alterPartitionReassignments(Map.of(partition, Optional.of(target))).all().get();
        long deadline = System.currentTimeMillis() + MOVE_MS_MAX;
        while (!admin.listPartitionReassignments(Set.of(partition)).reassignments().get().isEmpty()) {
            if (System.currentTimeMillis() > deadline) {
                throw new IllegalStateException("the replicas have not moved");
            }
            Thread.sleep(50);
        }
        electLeader(ElectionType.PREFERRED, partition);
        return String.join(" ", words);
    }

    private String elect(String[] words) throws Exception {
        need(words, 4, "elect preferred|unclean NAME PARTITION");
        ElectionType how = oneOf(words[1], Set.of("preferred", "unclean")).equals("unclean")
            ? ElectionType.UNCLEAN : ElectionType.PREFERRED;
        electLeader(how, new TopicPartition(words[2], Integer.parseInt(words[3])));
        return String.join(" ", words);
    }

    private void electLeader(ElectionType how, TopicPartition partition) throws Exception {
        long deadline = System.currentTimeMillis() + MOVE_MS_MAX;
        while (true) {
            Optional<Throwable> error = admin.electLeaders(how, Set.of(partition)).partitions().get().get(partition);
            if (error.isEmpty() || error.get() instanceof ElectionNotNeededException) {
                return;
            }
            // A broker that has just come back catches up before it may lead.
            boolean mayComeYet = error.get() instanceof PreferredLeaderNotAvailableException;
            if (!mayComeYet || System.currentTimeMillis() > deadline) {
                throw new IllegalStateException(error.get().toString());
            }
            Thread.sleep(50);
        }
    }

    private static List<Integer> nodes(String list) {
        return Arrays.stream(list.split(",")).map(Integer::valueOf).collect(Collectors.toList());
    }

    private String config(String[] words) throws Exception {
        need(words, 3, "config NAME key=value…");
        Collection<AlterConfigOp> changes = settings(words, 2).entrySet().stream()
            .map(e -> new AlterConfigOp(new ConfigEntry(e.getKey(), e.getValue()), AlterConfigOp.OpType.SET))
            .collect(Collectors.toList());
        ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, words[1]);
        admin.incrementalAlterConfigs(Map.of(topic, changes)).all().get();
        return "config " + words[1];
    }

    private String produce(String[] words) throws Exception {
        need(words, 7, "produce NAME PARTITION CODEC COUNT BATCH_RECORDS SEED [headers] [nullkeys] [nullvalues] [keys=N] [size=N]");
        String codec = words[3];
        Shape shape = new Shape(Long.parseLong(words[6]), Arrays.copyOfRange(words, 7, words.length));
        KafkaProducer<byte[], byte[]> producer = producers.computeIfAbsent(codec, name -> producer(name, Map.of()));
        return "produce " + send(producer, words[1], Integer.parseInt(words[2]), Integer.parseInt(words[4]),
            Integer.parseInt(words[5]), shape);
    }

    private String transaction(String[] words) throws Exception {
        need(words, 6, "transaction commit|abort|open NAME PARTITION COUNT TXID [SEED]");
        String end = oneOf(words[1], Set.of("commit", "abort", "open"));
        String txid = words[5];
        Shape shape = new Shape(words.length > 6 ? Long.parseLong(words[6]) : 0, new String[0]);
        KafkaProducer<byte[], byte[]> producer = producer("none",
            // What is left open stays so as long as a broker lets it.
            Map.of("transactional.id", txid, "transaction.timeout.ms", 900_000));
        String sent;
        try {
            producer.initTransactions();
            producer.beginTransaction();
            int count = Integer.parseInt(words[4]);
            sent = send(producer, words[2], Integer.parseInt(words[3]), count, count, shape);
        } catch (Exception e) {
            producer.close();
            throw e;
        }
        openTransactions.put(txid, producer);
        if (!end.equals("open")) {
            end(end, txid);
        }
        return "transaction " + end + " " + sent;
    }

    private String endTransaction(String[] words) {
        need(words, 3, "end-transaction commit|abort TXID");
        end(oneOf(words[1], Set.of("commit", "abort")), words[2]);
        return "end-transaction " + words[1] + " " + words[2];
    }

    private void end(String how, String txid) {
        KafkaProducer<byte[], byte[]> producer = openTransactions.remove(txid);
        if (producer == null) {
            throw new IllegalArgumentException("no open transaction " + txid);
        }
        try (producer) {
            if (how.equals("commit")) {
                producer.commitTransaction();
            } else {
                producer.abortTransaction();
            }
        }
    }

    private String deleteRecords(String[] words) throws Exception {
        need(words, 4, "delete-records NAME PARTITION BEFORE");
        TopicPartition partition = new TopicPartition(words[1], Integer.parseInt(words[2]));
        RecordsToDelete before = RecordsToDelete.beforeOffset(Long.parseLong(words[3]));
        long start = admin.deleteRecords(Map.of(partition, before)).lowWatermarks().get(partition).get().lowWatermark();
        return "delete-records " + words[1] + " " + words[2] + " " + start;
    }

    private static AclBinding mayRead(String topic, String user) {
        return new AclBinding(
            new ResourcePattern(ResourceType.TOPIC, topic, PatternType.LITERAL),
            new AccessControlEntry("User:" + user, "*", AclOperation.READ, AclPermissionType.ALLOW));
    }

    private String offsets(String[] words, OffsetSpec spec) throws Exception {
        need(words, 2, words[0] + " NAME");
        int partitions = admin.describeTopics(List.of(words[1])).allTopicNames().get().get(words[1]).partitions().size();
        Map<TopicPartition, OffsetSpec> asked = new HashMap<>();
        for (int i = 0; i < partitions; i++) {
            asked.put(new TopicPartition(words[1], i), spec);
        }
        Map<Integer, Long> found = new TreeMap<>();
        admin.listOffsets(asked).all().get().forEach((partition, info) -> found.put(partition.partition(), info.offset()));
        return words[0] + " " + words[1] + found.entrySet().stream()
            .map(e -> " " + e.getKey() + "=" + e.getValue()).collect(Collectors.joining());
    }

    /** Sends COUNT records in batches of BATCH_RECORDS; returns "NAME PARTITION FIRST LAST". */
    private String send(KafkaProducer<byte[], byte[]> producer, String topic, int partition, int count, int batchRecords,
                        Shape shape) throws Exception {
        if (count < 1 || batchRecords < 1) {
            throw new IllegalArgumentException("COUNT and BATCH_RECORDS are at least 1");
        }
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            sent.add(producer.send(shape.record(topic, partition, i)));
            if ((i + 1) % batchRecords == 0) {
                producer.flush();
            }
        }
        producer.flush();
        long first = sent.get(0).get().offset();
        long last = first;
        for (Future<RecordMetadata> record : sent) {
            last = Math.max(last, record.get().offset());
        }
        return topic + " " + partition + " " + first + " " + last;
    }

    private KafkaProducer<byte[], byte[]> producer(String codec, Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(Map.of(
            "bootstrap.servers", bootstrap,
            "compression.type", codec,
            "acks", "all",
            // Only flush() ends a batch: neither time nor size does.
            "linger.ms", 60_000,
            "batch.size", 900_000,
            "delivery.timeout.ms", 120_000,
            "buffer.memory", 64L << 20));
        settings.putAll(more);
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private void close() {
        producers.values().forEach(KafkaProducer::close);
        openTransactions.values().forEach(KafkaProducer::close);
        admin.close();
    }

    private static Map<String, String> settings(String[] words, int from) {
        Map<String, String> settings = new HashMap<>();
        for (String word : Arrays.asList(words).subList(from, words.length)) {
            int equals = word.indexOf('=');
            if (equals < 1) {
                throw new IllegalArgumentException("expected key=value, found " + word);
            }
            settings.put(word.substring(0, equals), word.substring(equals + 1));
        }
        return settings;
    }

    private static void need(String[] words, int atLeast, String usage) {
        if (words.length < atLeast) {
            throw new IllegalArgumentException("usage: " + usage);
        }
    }

    private static String oneOf(String word, Set<String> allowed) {
        if (!allowed.contains(word)) {
            throw new IllegalArgumentException("expected one of " + allowed + ", found " + word);
        }
        return word;
    }

    /** The records that a seed and options stand for; `records.rs` says the same in Rust. */
    private static final class Shape {
        private final long seed;
        private boolean headers;
        private boolean nullKeys;
        private boolean nullValues;
        private int keys;
        private int size = -1;

        Shape(long seed, String[] options) {
            this.seed = seed;
            for (String option : options) {
                if (option.equals("headers")) {
                    headers = true;
                } else if (option.equals("nullkeys")) {
                    nullKeys = true;
                } else if (option.equals("nullvalues")) {
                    nullValues = true;
                } else if (option.startsWith("keys=")) {
                    keys = Integer.parseInt(option.substring(5));
                } else if (option.startsWith("size=")) {
                    size = Integer.parseInt(option.substring(5));
                } else {
                    throw new IllegalArgumentException("unknown option " + option);
                }
            }
        }

        ProducerRecord<byte[], byte[]> record(String topic, int partition, int index) {
            String name = keys > 0 ? "key-" + index % keys : "key-" + seed + "-" + index;
            byte[] key = nullKeys && index % 3 == 1 ? null : utf8(name);
            byte[] value = nullValues && index % 5 == 2 ? null : utf8(value(index));
            long timestamp = FIRST_TIMESTAMP_MS + TIMESTAMP_STEP_MS * index;
            ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, partition, timestamp, key, value);
            if (headers) {
                record.headers().add("index", utf8(Integer.toString(index))).add("empty", new byte[0]).add("none", null);
            }
            return record;
        }

        private String value(int index) {
            long hash = splitmix64(seed * 1_000_003L + index);
            int length = size >= 0 ? size : (int) Long.remainderUnsigned(hash, 256);
            StringBuilder value = new StringBuilder("value-").append(seed).append('-').append(index).append('-');
            for (int i = 0; i < length; i++) {
                value.append((char) ('a' + Long.remainderUnsigned(Long.rotateRight(hash, i), 26)));
            }
            return value.toString();
        }

        private static long splitmix64(long x) {
            x += 0x9E3779B97F4A7C15L;
            x = (x ^ (x >>> 30)) * 0xBF58476D1CE4E5B9L;
            x = (x ^ (x >>> 27)) * 0x94D049BB133111EBL;
            return x ^ (x >>> 31);
        }

        private static byte[] utf8(String text) {
            return text.getBytes(StandardCharsets.UTF_8);
        }
    }
}
