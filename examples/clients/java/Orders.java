import static java.nio.charset.StandardCharsets.UTF_8;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Produces orders, and consumes them in a group. */
public final class Orders {
  public static void main(String[] arguments) throws Exception {
    if (arguments.length == 4 && arguments[0].equals("produce")) {
      produce(arguments[1], arguments[2], Integer.parseInt(arguments[3]));
    } else if (arguments.length == 5 && arguments[0].equals("consume")) {
      consume(arguments[1], arguments[2], arguments[3], Integer.parseInt(arguments[4]));
    } else {
      System.err.println("usage: Orders produce BOOTSTRAP TOPIC COUNT | consume BOOTSTRAP TOPIC GROUP COUNT");
      System.exit(2);
    }
  }

  private static void produce(String bootstrap, String topic, int count) {
    // Idempotence and acks=all are the client's defaults: a record counts once all in-sync replicas have it, and a retry writes nothing twice.
    Map<String, Object> config = Map.of(
        ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap,
        // For so long a record is tried again, for instance while leaders move.
        ProducerConfig.DELIVERY_TIMEOUT_MS_CONFIG, 30_000,
        ProducerConfig.REQUEST_TIMEOUT_MS_CONFIG, 10_000,
        ProducerConfig.MAX_BLOCK_MS_CONFIG, 30_000);
    List<Exception> failures = Collections.synchronizedList(new ArrayList<>());
    try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
      for (int order = 0; order < count; order++) {
        // One customer's orders have one key, so they are in one partition, in order.
        var record = new ProducerRecord<>(topic, "customer-" + order % 5, "{\"order\":" + order + "}");
        record.headers().add("source", "java".getBytes(UTF_8));
        producer.send(record, (metadata, failure) -> {
          if (failure != null) {
            failures.add(failure);
          }
        });
      }
      producer.flush();
    }
    if (!failures.isEmpty()) {
      System.err.println(failures.size() + " of " + count + " orders are not written, the first because of: " + failures.get(0));
      System.exit(1);
    }
  }

  private static void consume(String bootstrap, String topic, String group, int count) {
    Map<String, Object> config = Map.of(
        ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap,
        ConsumerConfig.GROUP_ID_CONFIG, group,
        ConsumerConfig.GROUP_PROTOCOL_CONFIG, "consumer",
        ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest",
        ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
    try (var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
      var thread = Thread.currentThread();
      // Ctrl-C ends the poll, so that the group hears at once that this member is gone.
      Runtime.getRuntime().addShutdownHook(new Thread(() -> {
        consumer.wakeup();
        try {
          thread.join();
        } catch (InterruptedException e) {
          Thread.currentThread().interrupt();
        }
      }));
      consumer.subscribe(List.of(topic));
      for (int left = count; left > 0; ) {
        for (var record : consumer.poll(Duration.ofSeconds(1))) {
          Header source = record.headers().lastHeader("source");
          System.out.println(record.key() + " " + record.value() + " " + new String(source.value(), UTF_8));
          left--;
        }
        try {
          // Committed once they are handled: after a crash some orders come again, and none is left out.
          consumer.commitSync();
        } catch (CommitFailedException | RebalanceInProgressException e) {
          System.err.println("not committed, whoever has the partitions now gets the orders again: " + e.getMessage());
        }
      }
    } catch (WakeupException e) {
      System.err.println("interrupted");
    }
  }
}
