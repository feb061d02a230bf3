package dev.weir.e2e;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Producers with transactional ids, each under a name of the test's own, and the chain that consumes, transforms and produces. */
final class Transactions {
    private final String bootstrap;
    private final Map<String, KafkaProducer<byte[], byte[]>> producers = new HashMap<>();

    Transactions(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    /** The reply, or null when the operation is not about transactions. */
    JsonNode handle(JsonNode request) throws Exception {
        return switch (request.get("op").asText()) {
            case "transactional" -> begin(request);
            case "transact" -> transact(request);
            case "transform" -> transform(request);
            default -> null;
        };
    }

    private KafkaProducer<byte[], byte[]> producer(JsonNode request) {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("transactional.id", request.get("id").asText());
        config.put("transaction.timeout.ms", request.path("transaction_timeout_ms").asInt(60_000));
        config.put("max.block.ms", 30_000);
        config.put("delivery.timeout.ms", 30_000);
        config.put("request.timeout.ms", 20_000);
        var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
        producer.initTransactions();
        return producer;
    }

    private JsonNode begin(JsonNode request) {
        producers.put(request.get("producer").asText(), producer(request));
        return Driver.JSON.createObjectNode();
    }

    private JsonNode transact(JsonNode request) throws Exception {
        var producer = producers.get(request.get("producer").asText());
        // One that was left open goes on.
        if (!request.path("open").asBoolean(false)) producer.beginTransaction();
        for (JsonNode value : request.get("values")) {
            byte[] bytes = value.asText().getBytes(StandardCharsets.UTF_8);
            producer.send(new ProducerRecord<>(request.get("topic").asText(), request.path("partition").asInt(0), null, bytes)).get();
        }
        switch (request.get("end").asText()) {
            case "commit" -> producer.commitTransaction();
            case "abort" -> producer.abortTransaction();
            default -> {}
        }
        return Driver.JSON.createObjectNode();
    }

    /** Copies records of one topic into another, a transaction for each poll, until so many are copied. */
    private JsonNode transform(JsonNode request) throws Exception {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("group.id", request.get("group").asText());
        config.put("enable.auto.commit", "false");
        config.put("auto.offset.reset", "earliest");
        config.put("isolation.level", "read_committed");
        config.put("max.poll.records", 7);
        config.put("session.timeout.ms", 6_000);
        int count = request.get("count").asInt();
        int copied = 0;
        KafkaProducer<byte[], byte[]> producer = producer(request);
        try (var consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of(request.get("from_topic").asText()));
            long deadline = System.currentTimeMillis() + request.path("timeout_ms").asInt(60_000);
            while (copied < count && System.currentTimeMillis() < deadline) {
                var records = consumer.poll(Duration.ofMillis(200));
                if (records.isEmpty()) continue;
                try {
                    producer.beginTransaction();
                    Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                    for (ConsumerRecord<byte[], byte[]> r : records) {
                        producer.send(new ProducerRecord<>(request.get("to").asText(), r.partition(), r.key(), r.value()));
                        offsets.put(new TopicPartition(r.topic(), r.partition()), new OffsetAndMetadata(r.offset() + 1));
                    }
                    producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
                    producer.commitTransaction();
                    copied += records.count();
                } catch (KafkaException e) {
                    // As an application does: abort, and begin again from what is committed; with a new producer where this one is fenced or broken.
                    try {
                        producer.abortTransaction();
                    } catch (KafkaException fatal) {
                        producer.close(Duration.ZERO);
                        producer = producer(request);
                    }
                    var committed = consumer.committed(consumer.assignment());
                    for (TopicPartition p : consumer.assignment()) {
                        OffsetAndMetadata at = committed.get(p);
                        if (at == null) consumer.seekToBeginning(List.of(p));
                        else consumer.seek(p, at.offset());
                    }
                }
            }
        } finally {
            producer.close(Duration.ofSeconds(5));
        }
        return Driver.JSON.createObjectNode().put("copied", copied);
    }
}
