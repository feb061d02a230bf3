//! Starts without a controller: the broker continues with the metadata of its last run, if its logs
//! are complete and the metadata is certain.

use std::path::Path;
use std::time::Duration;

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::MetadataRequest;

use crate::support::{BrokerProcess, Client, Cluster, batch, fetch_from, topic};

const GOES_ON: &str = "no controller answers; going on with the metadata, the roles and the epochs of the last run: what needs a controller waits for one";
const WAITS: &str = "no controller answers, and there is nothing to go on with: this broker serves nothing until one does";

#[tokio::test]
async fn without_a_controller_it_goes_on_where_it_was_and_registers_when_there_is_one() {
    let mut cluster = Cluster::start(vec![topic(1, "t", 1, &[])]).await;
    let mut client = cluster.client().await;
    assert_eq!(client.produce("t", 0, -1, batch(&["0"])).await.base_offset, 0);
    cluster.controller.change(1, 0, |partition| partition.leader_epoch += 1);
    client.knows("t", |partition| partition.leader_epoch == 1).await;
    cluster.controller.go_away();
    for (round, in_order) in [(1, true), (2, false), (3, true)] {
        match in_order {
            true => assert!(cluster.broker.stop().await.success(), "{}", cluster.broker.log()),
            false => cluster.broker.kill().await,
        }
        cluster.restart().await;
        let line = cluster.broker.wait_for_line(GOES_ON).await;
        assert_eq!(
            (&line["broker_epoch"], &line["controller_epoch"]),
            (&1.into(), &1.into()),
            "{line}"
        );
        let mut client = cluster.client().await;
        assert_eq!(
            client.produce("t", 0, -1, batch(&[&round.to_string()])).await.base_offset,
            round
        );
        client.knows("t", |partition| partition.leader_epoch == 1).await;
        // Another leader may have written more meanwhile.
        assert_eq!(beyond_the_end(&mut client).await, ErrorCode::OffsetNotAvailable.code());
        assert_eq!(client.call(12, &MetadataRequest::default()).await.brokers.len(), 1);
        cluster.broker.ready().await;
    }
    cluster.controller.come_back();
    let registrations = cluster.controller.registrations(2).await;
    let (first, second) = (&registrations[0], &registrations[1]);
    assert_eq!(
        (second.previous_broker_epoch, second.clean, second.controller_epoch),
        (Some(1), true, 1)
    );
    assert_ne!(first.incarnation, second.incarnation);
    let mut client = cluster.client().await;
    assert_eq!(client.produce("t", 0, -1, batch(&["4"])).await.base_offset, 4);
    let values: Vec<_> =
        client.read_all("t", 0).await.into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, ["0", "1", "2", "3", "4"]);
    for _ in 0..1_000 {
        if beyond_the_end(&mut client).await == ErrorCode::OffsetOutOfRange.code() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a confirmed leader knows its end: {}", cluster.broker.log());
}

async fn beyond_the_end(client: &mut Client) -> i16 {
    client.call(12, &fetch_from("t", 0, 99)).await.responses[0].partitions[0].error_code
}

fn edit(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(file).unwrap();
    change(&mut bytes);
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn what_is_in_doubt_is_not_gone_on_with_and_nothing_of_the_log_is_touched_meanwhile() {
    let mut cluster = Cluster::start(vec![topic(1, "t", 1, &[])]).await;
    let mut client = cluster.client().await;
    assert_eq!(client.produce("t", 0, -1, batch(&["0"])).await.base_offset, 0);
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let image = cluster.launch.data.join("image");
    let damaged = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    let rebooted = |bytes: &mut Vec<u8>| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        *bytes = text.replace(boot_id.trim(), "another").into_bytes();
    };
    let mut registered = 1;
    for what in ["damaged", "rebooted"] {
        cluster.controller.go_away();
        cluster.broker.kill().await;
        match what {
            "damaged" => edit(&image, damaged),
            _ => edit(&cluster.launch.data.join("run"), rebooted),
        }
        cluster.broker = BrokerProcess::spawn(&cluster.launch);
        cluster.broker.find_pages().await;
        cluster.broker.wait_for_line(WAITS).await;
        assert!(!cluster.broker.log().contains(GOES_ON), "{what}");
        cluster.controller.come_back();
        registered += 2;
        let registrations = cluster.controller.registrations(registered - 1).await;
        assert_eq!(registrations[registered - 2].clean, what == "damaged");
        cluster.broker.kill().await;
        cluster.restart().await;
        let mut client = cluster.client().await;
        assert_eq!(client.read_all("t", 0).await.len(), 1, "{what}");
        let _ = cluster.controller.registrations(registered).await;
    }
}
