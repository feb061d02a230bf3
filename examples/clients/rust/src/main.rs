//! Produces orders, and consumes them in a group.

use std::error::Error;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

/// What is told of each record in the end.
#[derive(Default)]
struct Deliveries {
    failures: Mutex<Vec<KafkaError>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((failure, _)) = result {
            self.failures.lock().unwrap().push(failure.clone());
        }
    }
}

fn produce(bootstrap: &str, topic: &str, count: usize) -> Result<(), Box<dyn Error>> {
    let producer: BaseProducer<Deliveries> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        // acks=all is librdkafka's default; idempotence is not: with it a retry writes nothing
        // twice.
        .set("enable.idempotence", "true")
        // For so long a record is tried again, for instance while leaders move.
        .set("delivery.timeout.ms", "30000")
        .create_with_context(Deliveries::default())?;
    for order in 0..count {
        // One customer's orders have one key, so they are in one partition, in order.
        let (key, value) = (format!("customer-{}", order % 5), format!("{{\"order\":{order}}}"));
        let headers = OwnedHeaders::new().insert(Header { key: "source", value: Some("rust") });
        let mut record = BaseRecord::to(topic).key(&key).payload(&value).headers(headers);
        loop {
            match producer.send(record) {
                Ok(()) => break,
                // More is on its way than the client keeps: wait until some of it is told.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    record = refused;
                    producer.poll(Duration::from_millis(100));
                }
                Err((failure, _)) => return Err(failure.into()),
            }
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(40))?;
    let failures = producer.context().failures.lock().unwrap();
    match failures.first() {
        Some(first) => Err(format!(
            "{} of {count} orders are not written, the first because of: {first}",
            failures.len()
        )
        .into()),
        None => Ok(()),
    }
}

fn consume(bootstrap: &str, topic: &str, group: &str, count: usize) -> Result<(), Box<dyn Error>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()?;
    consumer.subscribe(&[topic])?;
    let mut handled = 0;
    while handled < count {
        match consumer.poll(Duration::from_secs(1)) {
            None => continue,
            Some(Ok(record)) => {
                let text = |bytes: Option<&[u8]>| {
                    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
                };
                let source = record
                    .headers()
                    .and_then(|headers| headers.iter().find(|header| header.key == "source"));
                let source = source.and_then(|header| header.value);
                println!("{} {} {}", text(record.key()), text(record.payload()), text(source));
                handled += 1;
            }
            Some(Err(failure)) if failure.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) => {
                return Err(failure.into());
            }
            // The client tries again by itself.
            Some(Err(failure)) => eprintln!("{failure}"),
        }
        // Committed once they are handled, not one by one: after a crash some orders come again,
        // and none is left out.
        if handled == count || handled % 100 == 0 {
            if let Err(failure) = consumer.commit_consumer_state(CommitMode::Sync) {
                eprintln!(
                    "not committed, whoever has the partitions now gets the orders again: {failure}"
                );
            }
        }
    }
    // The group hears at once that this member is gone: closing is part of the consumer's drop.
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["produce", bootstrap, topic, count] => produce(bootstrap, topic, count.parse()?),
        ["consume", bootstrap, topic, group, count] => {
            consume(bootstrap, topic, group, count.parse()?)
        }
        _ => {
            Err("usage: orders produce BOOTSTRAP TOPIC COUNT | consume BOOTSTRAP TOPIC GROUP COUNT"
                .into())
        }
    }
}
