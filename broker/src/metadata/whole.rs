//! The image as a full update of the controller. The next process of this broker begins with it
//! while no controller answers.

use weir_protocol::controller as rpc;
use weir_protocol::types::BrokerId;

use super::{
    BrokerImage, Configs, MetadataImage, NamedConfigs, PartitionImage, TopicImage, credentials,
};

impl MetadataImage {
    /// Returns the update that makes this image from an empty one.
    pub fn whole(&self) -> rpc::MetadataUpdate {
        let of_broker = |(id, set): (&BrokerId, &std::sync::Arc<Configs>)| rpc::BrokerConfigs {
            broker_id: id.0,
            configs: Some(configs(set)),
        };
        rpc::MetadataUpdate {
            version: self.version,
            full: true,
            brokers: self.brokers.values().map(|image| broker(image)).collect(),
            topics: self.topics.values().map(|image| topic(image)).collect(),
            cluster_configs: Some(configs(&self.cluster_configs)),
            broker_configs: self.broker_configs.iter().map(of_broker).collect(),
            features: Some(rpc::Features {
                epoch: self.features_epoch,
                levels: self.features.clone().into_iter().collect(),
            }),
            removed_brokers: Vec::new(),
            removed_topics: Vec::new(),
            group_configs: named(&self.group_configs),
            client_metrics: named(&self.client_metrics),
            scram_mock_key: self
                .scram_mock_key
                .as_ref()
                .map(|key| key.expose().to_vec())
                .unwrap_or_default(),
            scram_credentials: credentials::whole(&self.scram_credentials),
        }
    }
}

fn named(all: &NamedConfigs) -> Vec<rpc::NamedConfigs> {
    let of_name = |(name, set): (&String, &std::sync::Arc<Configs>)| rpc::NamedConfigs {
        name: name.clone(),
        configs: Some(configs(set)),
    };
    all.iter().map(of_name).collect()
}

fn configs(set: &Configs) -> rpc::Configs {
    rpc::Configs { entries: set.clone().into_iter().collect() }
}

fn broker(image: &BrokerImage) -> rpc::Broker {
    let endpoints = image.endpoints.iter().map(|endpoint| rpc::Endpoint {
        listener: endpoint.listener.clone(),
        host: endpoint.host.clone(),
        port: u32::from(endpoint.port),
        ..Default::default()
    });
    rpc::Broker {
        id: image.id.0,
        epoch: image.epoch.0,
        endpoints: endpoints.collect(),
        rack: image.rack.clone().unwrap_or_default(),
        fenced: image.fenced,
        shutting_down: image.shutting_down,
    }
}

fn topic(image: &TopicImage) -> rpc::Topic {
    rpc::Topic {
        id: image.id.0.as_bytes().to_vec(),
        name: image.name.to_string(),
        internal: image.internal,
        configs: Some(configs(&image.configs)),
        partitions: (0..)
            .zip(&image.partitions)
            .map(|(index, image)| partition(index, image))
            .collect(),
    }
}

fn partition(index: i32, image: &PartitionImage) -> rpc::Partition {
    let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect();
    rpc::Partition {
        index,
        replicas: ids(&image.replicas),
        adding: ids(&image.adding),
        removing: ids(&image.removing),
        leader: image.leader.map_or(-1, |leader| leader.0),
        leader_epoch: image.leader_epoch.0,
        partition_epoch: image.partition_epoch.0,
        isr: ids(&image.isr),
        elr: ids(&image.elr),
        recovering: image.recovering,
    }
}

#[cfg(test)]
mod tests {
    use weir_protocol::types::ControllerEpoch;
    use weir_security::scram::{Credential, Mechanism};

    use super::*;

    #[test]
    fn an_image_is_made_anew_out_of_what_it_tells() {
        let text = |key: &str, value: &str| rpc::Configs {
            entries: [(key.to_owned(), value.to_owned())].into(),
        };
        let partition = rpc::Partition {
            index: 0,
            replicas: vec![1, 2, 3],
            adding: vec![3],
            removing: vec![1],
            leader: -1,
            leader_epoch: 5,
            partition_epoch: 6,
            isr: vec![2],
            elr: vec![1],
            recovering: true,
        };
        let told = rpc::MetadataUpdate {
            version: 17,
            full: true,
            brokers: vec![rpc::Broker {
                id: 1,
                epoch: 12,
                endpoints: vec![rpc::Endpoint {
                    listener: "PLAINTEXT".to_owned(),
                    host: "h".to_owned(),
                    port: 9092,
                    security_protocol: String::new(),
                }],
                rack: "r".to_owned(),
                fenced: true,
                shutting_down: true,
            }],
            topics: vec![rpc::Topic {
                id: vec![7; 16],
                name: "t".to_owned(),
                internal: true,
                configs: Some(text("a", "b")),
                partitions: vec![
                    partition.clone(),
                    rpc::Partition { index: 1, leader: 2, ..partition },
                ],
            }],
            cluster_configs: Some(text("c", "d")),
            broker_configs: vec![rpc::BrokerConfigs {
                broker_id: 1,
                configs: Some(text("e", "f")),
            }],
            features: Some(rpc::Features {
                epoch: 3,
                levels: [("transaction.version".to_owned(), 2)].into(),
            }),
            scram_mock_key: vec![5; 16],
            scram_credentials: vec![rpc::ScramCredential {
                user: "u".to_owned(),
                mechanism: 1,
                credential: Credential::of_password(Mechanism::Sha256, b"p", vec![1], 4096)
                    .unwrap()
                    .to_text(),
            }],
            ..Default::default()
        };
        let (image, _) = MetadataImage::default().after(ControllerEpoch(4), &told).unwrap();
        assert_eq!(image.whole(), told);
    }
}
