package dev.weir.e2e;

import com.fasterxml.jackson.databind.JsonNode;
import java.time.Duration;
import java.util.Arrays;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Produced;

/** Kafka Streams counting words, exactly once: with a repartition topic and a changelog, which it makes itself. */
final class WordCount {
    private final String bootstrap;
    private KafkaStreams streams;

    WordCount(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    /** The reply, or null when the operation is not about streams. */
    JsonNode handle(JsonNode request) throws Exception {
        return switch (request.get("op").asText()) {
            case "count_words" -> start(request);
            case "stop_counting" -> stop();
            default -> null;
        };
    }

    private JsonNode start(JsonNode request) throws Exception {
        Properties config = new Properties();
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, request.get("application").asText());
        config.put(StreamsConfig.STATE_DIR_CONFIG, request.get("state").asText());
        config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        config.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.String().getClass());
        config.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.String().getClass());
        // Each count is told, none is kept back to save a record.
        config.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        config.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 3);
        config.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        config.put(StreamsConfig.consumerPrefix("session.timeout.ms"), 6_000);
        config.put(StreamsConfig.consumerPrefix("max.poll.records"), 20);
        var builder = new StreamsBuilder();
        builder.<String, String>stream(request.get("from_topic").asText())
            .flatMapValues(line -> Arrays.asList(line.split(" ")))
            .groupBy((key, word) -> word)
            .count()
            .toStream()
            .mapValues(String::valueOf)
            .to(request.get("to").asText(), Produced.with(Serdes.String(), Serdes.String()));
        streams = new KafkaStreams(builder.build(), config);
        streams.setUncaughtExceptionHandler(e -> StreamThreadExceptionResponse.REPLACE_THREAD);
        streams.start();
        long deadline = System.currentTimeMillis() + 90_000;
        while (streams.state() != KafkaStreams.State.RUNNING) {
            if (System.currentTimeMillis() > deadline) throw new IllegalStateException("the streams are " + streams.state());
            Thread.sleep(50);
        }
        return Driver.JSON.createObjectNode();
    }

    private JsonNode stop() {
        return Driver.JSON.createObjectNode().put("stopped", streams.close(Duration.ofSeconds(30)));
    }
}
