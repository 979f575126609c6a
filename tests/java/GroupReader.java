import java.io.BufferedOutputStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * A member of a consumer group: reads a topic until it has so many records, commits, and says where the group stands.
 *
 * <p>Usage: {@code java -cp CLASSPATH GroupReader.java BOOTSTRAP GROUP NAME COUNT [key=value…]}, with key=value a setting of the
 * consumer. On stdout, a line each:
 * <pre>
 * node ID HOST PORT                     the brokers as DescribeCluster tells them
 * record PARTITION OFFSET VALUE         in the order in which they come
 * committed PARTITION OFFSET            of the group, by another request
 * </pre>
 */
public class GroupReader {
    /** A consumer that gets nothing for this long is stuck. */
    private static final long SILENCE_MS_MAX = 40_000;

    public static void main(String[] args) throws Exception {
        if (args.length < 4) {
            System.err.println("usage: GroupReader BOOTSTRAP GROUP NAME COUNT [key=value…]");
            System.exit(2);
        }
        Map<String, Object> settings = new HashMap<>(Map.of(
            "bootstrap.servers", args[0],
            "group.id", args[1],
            "enable.auto.commit", "false",
            "auto.offset.reset", "earliest"));
        for (String setting : List.of(args).subList(4, args.length)) {
            String[] halves = setting.split("=", 2);
            settings.put(halves[0], halves[1]);
        }
        PrintStream out = new PrintStream(
            new BufferedOutputStream(new FileOutputStream(FileDescriptor.out), 1 << 16), false, StandardCharsets.UTF_8);
        long wanted = Long.parseLong(args[3]);
        StringDeserializer text = new StringDeserializer();
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", args[0]));
             KafkaConsumer<String, String> consumer = new KafkaConsumer<>(settings, text, text)) {
            for (Node node : admin.describeCluster().nodes().get()) {
                out.println("node " + node.id() + " " + node.host() + " " + node.port());
            }
            consumer.subscribe(List.of(args[2]));
            long heard = System.currentTimeMillis();
            for (long read = 0; read < wanted; ) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                    out.println("record " + record.partition() + " " + record.offset() + " " + record.value());
                    read++;
                    heard = System.currentTimeMillis();
                }
                if (System.currentTimeMillis() - heard > SILENCE_MS_MAX) {
                    throw new IllegalStateException("stuck after " + read + " of " + wanted);
                }
            }
            consumer.commitSync();
            Map<Integer, Long> committed = new TreeMap<>();
            admin.listConsumerGroupOffsets(args[1]).partitionsToOffsetAndMetadata().get()
                .forEach((TopicPartition partition, org.apache.kafka.clients.consumer.OffsetAndMetadata offset) ->
                    committed.put(partition.partition(), offset.offset()));
            committed.forEach((partition, offset) -> out.println("committed " + partition + " " + offset));
        } finally {
            out.flush();
        }
    }
}
