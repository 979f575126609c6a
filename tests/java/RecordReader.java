import java.io.BufferedOutputStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * An ordinary Java consumer: prints each record of a partition from an offset to the end as one line of JSON.
 *
 * <p>Usage: {@code java -cp CLASSPATH RecordReader.java BOOTSTRAP NAME PARTITION OFFSET ISOLATION [key=value…]}, with ISOLATION
 * read_committed or read_uncommitted and key=value a setting of the consumer. The end is that of the moment when it starts.
 *
 * <p>The fields are those of {@code kcat -J}: topic, partition, offset, tstype, ts, headers (flat: name, value, name, value;
 * absent without headers), key, payload. Bytes that are not UTF-8 stand as base64 in key_base64 or payload_base64 instead, and in
 * headers as {"base64": …}.
 */
public class RecordReader {
    /** A consumer that gets nothing for this long is stuck. */
    private static final long SILENCE_MS_MAX = 30_000;

    public static void main(String[] args) throws Exception {
        if (args.length < 5) {
            System.err.println("usage: RecordReader BOOTSTRAP NAME PARTITION OFFSET read_committed|read_uncommitted [key=value…]");
            System.exit(2);
        }
        TopicPartition partition = new TopicPartition(args[1], Integer.parseInt(args[2]));
        Map<String, Object> settings = new HashMap<>(Map.of(
            "bootstrap.servers", args[0],
            "isolation.level", args[4],
            "enable.auto.commit", "false",
            "auto.offset.reset", "none"));
        for (String setting : List.of(args).subList(5, args.length)) {
            String[] halves = setting.split("=", 2);
            settings.put(halves[0], halves[1]);
        }
        PrintStream out = new PrintStream(
            new BufferedOutputStream(new FileOutputStream(FileDescriptor.out), 1 << 16), false, StandardCharsets.UTF_8);
        ByteArrayDeserializer bytes = new ByteArrayDeserializer();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings, bytes, bytes)) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, Long.parseLong(args[3]));
            // With read_committed, the end is the last stable offset.
            long end = consumer.endOffsets(List.of(partition)).get(partition);
            long heard = System.currentTimeMillis();
            // The position also passes what is not shown: transaction markers, aborted records, gaps of compaction.
            for (long position = consumer.position(partition); position < end; ) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    if (record.offset() < end) {
                        out.println(json(record));
                    }
                }
                long now = System.currentTimeMillis();
                long reached = consumer.position(partition);
                heard = reached == position ? heard : now;
                position = reached;
                if (now - heard > SILENCE_MS_MAX) {
                    throw new IllegalStateException("stuck at offset " + position + " of " + end);
                }
            }
        } finally {
            out.flush();
        }
    }

    private static String json(ConsumerRecord<byte[], byte[]> record) {
        StringBuilder json = new StringBuilder("{\"topic\":").append(quoted(record.topic()));
        json.append(",\"partition\":").append(record.partition());
        json.append(",\"offset\":").append(record.offset());
        json.append(",\"tstype\":").append(quoted(timestampType(record.timestampType())));
        json.append(",\"ts\":").append(record.timestamp());
        String separator = ",\"headers\":[";
        for (Header header : record.headers()) {
            json.append(separator).append(quoted(header.key())).append(',').append(headerValue(header.value()));
            separator = ",";
        }
        if (separator.equals(",")) {
            json.append(']');
        }
        json.append(',').append(field("key", record.key()));
        json.append(',').append(field("payload", record.value()));
        return json.append('}').toString();
    }

    private static String timestampType(TimestampType type) {
        switch (type) {
            case CREATE_TIME: return "create";
            case LOG_APPEND_TIME: return "logappend";
            default: return "unknown";
        }
    }

    private static String field(String name, byte[] bytes) {
        if (bytes == null) {
            return quoted(name) + ":null";
        }
        String text = text(bytes);
        return text == null ? quoted(name + "_base64") + ":" + base64(bytes) : quoted(name) + ":" + quoted(text);
    }

    private static String headerValue(byte[] bytes) {
        if (bytes == null) {
            return "null";
        }
        String text = text(bytes);
        return text == null ? "{\"base64\":" + base64(bytes) + "}" : quoted(text);
    }

    /** The bytes as text, or null where they are not UTF-8. */
    private static String text(byte[] bytes) {
        try {
            return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString();
        } catch (CharacterCodingException notText) {
            return null;
        }
    }

    private static String base64(byte[] bytes) {
        return '"' + Base64.getEncoder().encodeToString(bytes) + '"';
    }

    private static String quoted(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                quoted.append('\\').append(c);
            } else if (c < 0x20) {
                quoted.append(String.format("\\u%04x", (int) c));
            } else {
                quoted.append(c);
            }
        }
        return quoted.append('"').toString();
    }
}
