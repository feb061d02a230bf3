package dev.weir.e2e;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.ReplicaInfo;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;

/** What the Java Admin client does; one operation per method, as Driver's requests name them. */
final class Administration implements AutoCloseable {
    private final Admin admin;

    Administration(String bootstrap) {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("default.api.timeout.ms", 30_000);
        this.admin = Admin.create(config);
    }

    JsonNode handle(JsonNode request) throws Exception {
        return switch (request.get("op").asText()) {
            case "create_topic" -> createTopic(request);
            case "delete_topic" -> done(admin.deleteTopics(List.of(request.get("topic").asText())).all().get());
            case "list_topics" -> listTopics();
            case "describe_topic" -> describeTopic(request.get("topic").asText());
            case "create_partitions" -> done(admin.createPartitions(
                Map.of(request.get("topic").asText(), NewPartitions.increaseTo(request.get("partitions").asInt()))).all().get());
            case "describe_configs" -> describeConfigs(resource(request));
            case "alter_configs" -> alterConfigs(request);
            case "delete_records" -> deleteRecords(request);
            case "list_offsets" -> listOffsets(request);
            case "describe_cluster" -> describeCluster();
            case "describe_log_dirs" -> describeLogDirs(request.get("topic").asText());
            default -> throw new IllegalArgumentException("no such operation: " + request);
        };
    }

    private JsonNode createTopic(JsonNode request) throws Exception {
        Map<String, String> configs = new HashMap<>();
        request.path("configs").properties().forEach(e -> configs.put(e.getKey(), e.getValue().asText()));
        int partitions = request.path("partitions").asInt(-1);
        int replicas = request.path("replicas").asInt(-1);
        NewTopic topic = new NewTopic(request.get("topic").asText(),
            partitions < 0 ? Optional.empty() : Optional.of(partitions), replicas < 0 ? Optional.empty() : Optional.of((short) replicas));
        return done(admin.createTopics(List.of(topic.configs(configs))).all().get());
    }

    private JsonNode listTopics() throws Exception {
        ArrayNode names = Driver.JSON.createArrayNode();
        admin.listTopics().names().get().forEach(names::add);
        return names;
    }

    private JsonNode describeTopic(String topic) throws Exception {
        var description = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
        ObjectNode node = Driver.JSON.createObjectNode().put("topic_id", description.topicId().toString());
        ArrayNode partitions = node.putArray("partitions");
        for (var p : description.partitions()) {
            ObjectNode one = partitions.addObject().put("partition", p.partition()).put("leader", p.leader().id());
            one.put("replicas", p.replicas().size()).put("isr", p.isr().size());
        }
        return node;
    }

    /** name -> {value, source, synonyms}. */
    private JsonNode describeConfigs(ConfigResource resource) throws Exception {
        var options = new org.apache.kafka.clients.admin.DescribeConfigsOptions().includeSynonyms(true);
        ObjectNode node = Driver.JSON.createObjectNode();
        for (ConfigEntry entry : admin.describeConfigs(List.of(resource), options).all().get().get(resource).entries()) {
            ObjectNode one = node.putObject(entry.name()).put("value", entry.value()).put("source", entry.source().name());
            ArrayNode synonyms = one.putArray("synonyms");
            entry.synonyms().forEach(s -> synonyms.add(s.source().name()));
        }
        return node;
    }

    private JsonNode alterConfigs(JsonNode request) throws Exception {
        Collection<AlterConfigOp> ops = new ArrayList<>();
        for (JsonNode op : request.get("ops")) {
            var type = AlterConfigOp.OpType.valueOf(op.get(0).asText().toUpperCase(java.util.Locale.ROOT));
            ops.add(new AlterConfigOp(new ConfigEntry(op.get(1).asText(), op.path(2).isTextual() ? op.get(2).asText() : null), type));
        }
        return done(admin.incrementalAlterConfigs(Map.of(resource(request), ops)).all().get());
    }

    private JsonNode deleteRecords(JsonNode request) throws Exception {
        TopicPartition p = partition(request);
        var deleted = admin.deleteRecords(Map.of(p, RecordsToDelete.beforeOffset(request.get("offset").asLong()))).lowWatermarks().get(p).get();
        return Driver.JSON.createObjectNode().put("low_watermark", deleted.lowWatermark());
    }

    private JsonNode listOffsets(JsonNode request) throws Exception {
        OffsetSpec at = switch (request.get("at").asText()) {
            case "earliest" -> OffsetSpec.earliest();
            case "latest" -> OffsetSpec.latest();
            case "max_timestamp" -> OffsetSpec.maxTimestamp();
            case "earliest_local" -> OffsetSpec.earliestLocal();
            case "latest_tiered" -> OffsetSpec.latestTiered();
            default -> OffsetSpec.forTimestamp(request.get("at").asLong());
        };
        TopicPartition p = partition(request);
        var found = admin.listOffsets(Map.of(p, at)).partitionResult(p).get();
        return Driver.JSON.createObjectNode().put("offset", found.offset()).put("timestamp", found.timestamp());
    }

    private JsonNode describeCluster() throws Exception {
        var cluster = admin.describeCluster();
        ObjectNode node = Driver.JSON.createObjectNode().put("cluster_id", cluster.clusterId().get()).put("controller", cluster.controller().get().id());
        ArrayNode nodes = node.putArray("nodes");
        for (Node n : cluster.nodes().get()) nodes.addObject().put("id", n.id()).put("host", n.host()).put("port", n.port());
        return node;
    }

    /** partition -> bytes on disk, over all directories of all brokers. */
    private JsonNode describeLogDirs(String topic) throws Exception {
        List<Integer> brokers = admin.describeCluster().nodes().get().stream().map(Node::id).toList();
        ObjectNode sizes = Driver.JSON.createObjectNode();
        for (var dirs : admin.describeLogDirs(brokers).allDescriptions().get().values()) {
            for (var dir : dirs.values()) {
                for (Map.Entry<TopicPartition, ReplicaInfo> e : dir.replicaInfos().entrySet()) {
                    if (e.getKey().topic().equals(topic)) sizes.put(String.valueOf(e.getKey().partition()), e.getValue().size());
                }
            }
        }
        return sizes;
    }

    private static ConfigResource resource(JsonNode request) {
        return new ConfigResource(ConfigResource.Type.valueOf(request.get("type").asText().toUpperCase(java.util.Locale.ROOT)), request.get("name").asText());
    }

    private static TopicPartition partition(JsonNode request) {
        return new TopicPartition(request.get("topic").asText(), request.get("partition").asInt());
    }

    private static JsonNode done(Void nothing) {
        return Driver.JSON.createObjectNode();
    }

    @Override
    public void close() {
        admin.close();
    }
}
