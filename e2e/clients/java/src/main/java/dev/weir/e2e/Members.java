package dev.weir.e2e;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Members of groups: they join, poll, commit and leave, each under a name of the test's own. */
final class Members {
    private final String bootstrap;
    private final Map<String, KafkaConsumer<byte[], byte[]>> members = new HashMap<>();

    Members(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    /** The reply, or null when the operation is not about members. */
    JsonNode handle(JsonNode request) {
        return switch (request.get("op").asText()) {
            case "join" -> join(request);
            case "poll" -> poll(request);
            case "commit" -> commit(request);
            case "leave" -> leave(request);
            default -> null;
        };
    }

    private JsonNode join(JsonNode request) {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("group.id", request.get("group").asText());
        config.put("enable.auto.commit", "false");
        config.put("auto.offset.reset", "earliest");
        config.put("key.deserializer", ByteArrayDeserializer.class);
        config.put("value.deserializer", ByteArrayDeserializer.class);
        config.put("max.poll.records", 10_000);
        if (request.path("protocol").asText("classic").equals("consumer")) {
            config.put("group.protocol", "consumer");
            if (request.hasNonNull("assignor")) config.put("group.remote.assignor", request.get("assignor").asText());
        } else {
            config.put("session.timeout.ms", request.path("session_ms").asInt(6_000));
            config.put("heartbeat.interval.ms", 500);
            if (request.hasNonNull("assignor")) config.put("partition.assignment.strategy", request.get("assignor").asText());
        }
        if (request.hasNonNull("instance")) config.put("group.instance.id", request.get("instance").asText());
        if (request.hasNonNull("rack")) config.put("client.rack", request.get("rack").asText());
        var consumer = new KafkaConsumer<byte[], byte[]>(config);
        if (request.hasNonNull("pattern")) {
            consumer.subscribe(new SubscriptionPattern(request.get("pattern").asText()));
        } else {
            List<String> topics = new ArrayList<>();
            for (JsonNode topic : request.get("topics")) topics.add(topic.asText());
            consumer.subscribe(topics);
        }
        members.put(request.get("member").asText(), consumer);
        return Driver.JSON.createObjectNode();
    }

    private JsonNode poll(JsonNode request) {
        var consumer = members.get(request.get("member").asText());
        int count = request.path("count").asInt(0);
        long deadline = System.currentTimeMillis() + request.path("timeout_ms").asInt(200);
        ObjectNode reply = Driver.JSON.createObjectNode();
        ArrayNode records = reply.putArray("records");
        do {
            for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(100))) records.add(Driver.json(r));
        } while (records.size() < count && System.currentTimeMillis() < deadline);
        ArrayNode assigned = reply.putArray("assigned");
        for (TopicPartition p : consumer.assignment()) assigned.addArray().add(p.topic()).add(p.partition());
        return reply;
    }

    private JsonNode commit(JsonNode request) {
        members.get(request.get("member").asText()).commitSync(Duration.ofSeconds(20));
        return Driver.JSON.createObjectNode();
    }

    private JsonNode leave(JsonNode request) {
        var consumer = members.remove(request.get("member").asText());
        if (consumer != null) consumer.close();
        return Driver.JSON.createObjectNode();
    }
}
