//! The records of a machine as a log on disk, compacted by the real cleaner and read by the real
//! loader.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_protocol::types::{LeaderEpoch, TopicId, TopicPartition};

use super::{Entry, Harness, StateMachine, origin};
use crate::coordinator::append::Batches;
use crate::coordinator::load::{Loaded, Unreadable, load};
use weir_log::cleaner::{OffsetMap, assess_from, clean};
use weir_log::producers::Marker;
use weir_log::{Cleanup, Disk, Identity, LogConfig, LogDir, LogDirOptions, LogWriter, Prepared};

/// How long compaction keeps tombstones and markers after it first meets them.
const HORIZON_MS: i64 = 100;

impl<M: StateMachine> Harness<M> {
    /// A machine that reads the log after `rounds` of compaction. The rounds are far enough apart
    /// to remove all that may go.
    pub(crate) fn read_compacted(&self, rounds: i64) -> M {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity { cluster_id: "c".into(), broker_id: 0 };
        let options = LogDirOptions { open_files_max: 4, recovery_threads: 1 };
        let log_dir = LogDir::open(Arc::new(Disk), dir.path(), &identity, options).unwrap();
        let config = Arc::new(LogConfig {
            cleanup: Cleanup { delete: false, compact: true },
            // Small segments, so that all but the last batch or two can be cleaned.
            segment_bytes: 200,
            dirty_ratio_min: 0.0,
            delete_retention_ms: HORIZON_MS,
            ..LogConfig::default()
        });
        let id = TopicPartition { topic: TopicId::random(), index: 0 };
        let mut writer = log_dir.open_log(id, &M::TOPIC.into(), Arc::clone(&config)).unwrap();
        for entry in &self.log {
            self.append(entry, &mut writer);
        }
        let reader = writer.reader();
        log_dir.checkpoint().unwrap();
        reader.advance_high_watermark(reader.log_end_offset());
        for round in 0..rounds {
            let now_ms = self.now_ms as i64 + round * 2 * HORIZON_MS;
            let Some(plan) = assess_from(&reader, &config, 0, now_ms) else { break };
            let mut map = OffsetMap::new(1_000, [1; 16]);
            let last_records = writer.last_records(now_ms).unwrap_or_else(|_| BTreeMap::new());
            let cleaned =
                clean(&reader, &config, &plan, &mut map, &last_records, now_ms).unwrap().unwrap();
            assert!(cleaned.swap_in(&mut writer).unwrap());
            log_dir.checkpoint().unwrap();
        }
        let loaded =
            load::<M>(&reader, origin(self.epoch), &self.shared, Unreadable::Fails).unwrap();
        let Loaded { mut machine, end, .. } = loaded;
        assert_eq!(end, reader.log_end_offset());
        self.tell(&mut machine);
        machine
    }

    fn append(&self, entry: &Entry, writer: &mut LogWriter) {
        let now_ms = self.now_ms as i64;
        let prepared = match entry {
            Entry::Record(record, transaction) => {
                let mut batches = Batches::default();
                batches.add(std::slice::from_ref(record), *transaction, now_ms);
                batches.finish().unwrap().unwrap()
            }
            Entry::End(producer, epoch, commit) => {
                let marker = Marker {
                    producer: *producer,
                    epoch: *epoch,
                    coordinator_epoch: 0,
                    commit: *commit,
                    transaction_version: 0,
                };
                Prepared::marker(marker, now_ms).unwrap()
            }
        };
        let results = writer.append_as_leader(&mut [prepared], LeaderEpoch(0), now_ms);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
}
