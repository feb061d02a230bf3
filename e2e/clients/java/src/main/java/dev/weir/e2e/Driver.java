package dev.weir.e2e;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The Java client, driven line by line: one JSON request on the standard input, one JSON reply on the standard output (e2e/src/driver.rs). */
public final class Driver {
    static final ObjectMapper JSON = new ObjectMapper();

    private final String bootstrap;
    private final Administration administration;
    private final Members members;
    private final Transactions transactions;
    private final WordCount wordCount;

    private Driver(String bootstrap) {
        this.bootstrap = bootstrap;
        this.administration = new Administration(bootstrap);
        this.members = new Members(bootstrap);
        this.transactions = new Transactions(bootstrap);
        this.wordCount = new WordCount(bootstrap);
    }

    public static void main(String[] args) throws Exception {
        Driver driver = new Driver(args[0]);
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            out.println(driver.reply(line));
            out.flush();
        }
        driver.administration.close();
    }

    private String reply(String line) {
        ObjectNode reply = JSON.createObjectNode();
        try {
            reply.set("ok", handle(JSON.readTree(line)));
        } catch (Exception e) {
            Throwable cause = e;
            while ((cause instanceof ExecutionException || cause instanceof CompletionException) && cause.getCause() != null) cause = cause.getCause();
            Errors error = Errors.forException(cause);
            reply.putObject("error").put("code", error.code()).put("message", cause.toString());
        }
        return reply.toString();
    }

    private JsonNode handle(JsonNode request) throws Exception {
        return switch (request.get("op").asText()) {
            case "produce" -> produce(request);
            case "consume" -> consume(request);
            case "offset_for_time" -> offsetForTime(request);
            default -> {
                JsonNode reply = members.handle(request);
                if (reply == null) reply = transactions.handle(request);
                if (reply == null) reply = wordCount.handle(request);
                yield reply != null ? reply : administration.handle(request);
            }
        };
    }

    private JsonNode produce(JsonNode request) throws Exception {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("acks", request.path("acks").asText("all"));
        config.put("enable.idempotence", request.path("idempotent").asBoolean(false));
        config.put("compression.type", request.path("compression").asText("none"));
        config.put("linger.ms", request.path("linger_ms").asInt(0));
        config.put("max.request.size", 64 << 20);
        int timeoutMs = request.path("timeout_ms").asInt(20_000);
        config.put("max.block.ms", timeoutMs);
        config.put("delivery.timeout.ms", timeoutMs);
        // As long as can be: a request that is sent again by a producer without idempotence leaves its records twice.
        config.put("request.timeout.ms", Math.min(30_000, timeoutMs - 1_000));
        String topic = request.get("topic").asText();
        try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (JsonNode r : request.path("records")) sent.add(producer.send(record(topic, r)));
            JsonNode generate = request.path("generate");
            for (int i = 0; i < generate.path("count").asInt(0); i++) sent.add(producer.send(generated(topic, generate, i)));
            producer.flush();
            ObjectNode reply = JSON.createObjectNode();
            ArrayNode offsets = reply.putArray("offsets");
            for (Future<RecordMetadata> f : sent) offsets.addArray().add(f.get().partition()).add(f.get().offset());
            return reply;
        }
    }

    private static ProducerRecord<byte[], byte[]> record(String topic, JsonNode r) {
        Integer partition = r.path("partition").isInt() ? r.get("partition").asInt() : null;
        Long timestamp = r.path("timestamp").isNumber() ? r.get("timestamp").asLong() : null;
        var record = new ProducerRecord<>(topic, partition, timestamp, bytes(r.path("key")), bytes(r.path("value")));
        for (JsonNode h : r.path("headers")) record.headers().add(h.get(0).asText(), bytes(h.get(1)));
        return record;
    }

    /** Record i of a run: its key says which of the keys, its value begins with its number (see Generate in driver.rs). */
    private static ProducerRecord<byte[], byte[]> generated(String topic, JsonNode generate, int i) {
        byte[] value = new byte[generate.path("size").asInt(16)];
        Arrays.fill(value, (byte) 'x');
        byte[] number = String.format(Locale.ROOT, "%010d", i).getBytes(StandardCharsets.UTF_8);
        System.arraycopy(number, 0, value, 0, number.length);
        byte[] key = ("k" + i % generate.path("keys").asInt(1)).getBytes(StandardCharsets.UTF_8);
        return new ProducerRecord<>(topic, key, value);
    }

    private JsonNode consume(JsonNode request) {
        List<TopicPartition> partitions = new ArrayList<>();
        for (JsonNode p : request.get("partitions")) partitions.add(new TopicPartition(request.get("topic").asText(), p.asInt()));
        try (var consumer = consumer(request.path("read_committed").asBoolean(false))) {
            consumer.assign(partitions);
            JsonNode from = request.get("from");
            if (from.isNumber()) {
                for (TopicPartition p : partitions) consumer.seek(p, from.asLong());
            } else if (from.asText().equals("end")) {
                consumer.seekToEnd(partitions);
            } else {
                consumer.seekToBeginning(partitions);
            }
            int count = request.get("count").asInt();
            long deadline = System.currentTimeMillis() + request.path("timeout_ms").asInt(20_000);
            ArrayNode records = JSON.createArrayNode();
            while (records.size() < count && System.currentTimeMillis() < deadline) {
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(java.time.Duration.ofMillis(200))) records.add(json(r));
            }
            return records;
        }
    }

    static ObjectNode json(ConsumerRecord<byte[], byte[]> r) {
        ObjectNode node = JSON.createObjectNode();
        node.put("partition", r.partition()).put("offset", r.offset()).put("timestamp", r.timestamp());
        node.put("key", base64(r.key())).put("value", base64(r.value()));
        ArrayNode headers = node.putArray("headers");
        for (Header h : r.headers()) headers.addArray().add(h.key()).add(base64(h.value()));
        return node;
    }

    /** The first record at or after a time, as the consumer's own offsetsForTimes answers. */
    private JsonNode offsetForTime(JsonNode request) {
        try (var consumer = consumer()) {
            TopicPartition p = new TopicPartition(request.get("topic").asText(), request.get("partition").asInt());
            OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(p, request.get("timestamp").asLong())).get(p);
            return JSON.createObjectNode().put("offset", found == null ? -1 : found.offset());
        }
    }

    private KafkaConsumer<byte[], byte[]> consumer() {
        return consumer(false);
    }

    private KafkaConsumer<byte[], byte[]> consumer(boolean readCommitted) {
        Properties config = new Properties();
        config.put("isolation.level", readCommitted ? "read_committed" : "read_uncommitted");
        config.put("bootstrap.servers", bootstrap);
        config.put("enable.auto.commit", false);
        config.put("auto.offset.reset", "none");
        config.put("default.api.timeout.ms", 20_000);
        return new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static byte[] bytes(JsonNode node) {
        return node.isTextual() ? Base64.getDecoder().decode(node.asText()) : null;
    }

    static String base64(byte[] bytes) {
        return bytes == null ? null : Base64.getEncoder().encodeToString(bytes);
    }
}
