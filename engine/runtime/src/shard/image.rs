//! A shard's part of a checkpoint. It does not say which shard it was: on the next start there may
//! be more shards, or fewer, and identities are dealt out anew.

use std::collections::{BTreeMap, HashMap, VecDeque};

use quiver_model::{
    Producer, ProducerKind, RefusedRows, RejectCode, SenderId, Sequence, SessionId, ShardId,
    StreamName, Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{Ledger, ProducerState, RecentReject, SenderState};

/// State of a part of the identities, as of a position.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ShardImage {
    senders: Vec<SenderImage>,
    ledger: Vec<(String, Ledger)>,
    /// As `LastValues::export` gave it.
    #[serde(skip)]
    pub(crate) last_values: Vec<u8>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SenderImage {
    /// `urn:quiver:<kind>:<id>`.
    urn: String,
    last_session: u64,
    pairs: Vec<PairImage>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct PairImage {
    stream: String,
    producer: u64,
    skipping: bool,
    durable: u64,
    last_used_us: i64,
    rejects_total: u64,
    rejects: Vec<(u64, u16, String)>,
    /// Rows by the number of their code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    refused_rows: Vec<(u16, u64)>,
}

impl ShardImage {
    pub(super) fn of(
        senders: &HashMap<SenderId, SenderState>,
        ledger: &BTreeMap<SenderId, Ledger>,
        last_values: Vec<u8>,
    ) -> Self {
        let mut senders: Vec<SenderImage> = senders
            .iter()
            .map(|(sender, state)| SenderImage {
                urn: sender.to_urn(),
                last_session: state.last_session.get(),
                pairs: state
                    .pairs
                    .iter()
                    // A pair that was opened and never settled is not known yet.
                    .filter(|(_, pair)| pair.durable > Sequence(0))
                    .map(|((stream, producer), pair)| PairImage {
                        stream: stream.to_string(),
                        producer: producer.get(),
                        skipping: pair.kind == ProducerKind::Skipping,
                        durable: pair.durable.get(),
                        last_used_us: pair.last_used.as_micros(),
                        rejects_total: pair.rejects_total,
                        rejects: pair
                            .rejects
                            .iter()
                            .map(|reject| {
                                (
                                    reject.sequence.get(),
                                    reject.code.number(),
                                    reject.message.clone(),
                                )
                            })
                            .collect(),
                        refused_rows: pair
                            .refused_rows
                            .iter()
                            .map(|(code, rows)| (code.number(), rows))
                            .collect(),
                    })
                    .collect(),
            })
            .collect();
        senders.sort_by(|a, b| a.urn.cmp(&b.urn));
        let ledger = ledger
            .iter()
            .map(|(sender, ledger)| (sender.to_urn(), *ledger))
            .collect();
        Self {
            senders,
            ledger,
            last_values,
        }
    }

    /// An image of nobody, with these last values.
    #[cfg(test)]
    pub(crate) fn with_last_values(last_values: Vec<u8>) -> Self {
        Self {
            last_values,
            ..Self::default()
        }
    }

    /// The ledgers of its identities.
    pub fn ledgers(&self) -> BTreeMap<SenderId, Ledger> {
        let ledgers = self.ledger.iter();
        ledgers
            .filter_map(|(urn, ledger)| Some((SenderId::from_urn(urn)?, *ledger)))
            .collect()
    }

    pub(super) fn into_state(self) -> (HashMap<SenderId, SenderState>, BTreeMap<SenderId, Ledger>) {
        let senders = self
            .senders
            .into_iter()
            .filter_map(|image| {
                let sender = SenderId::from_urn(&image.urn)?;
                let mut state = SenderState {
                    last_session: SessionId(image.last_session),
                    ..Default::default()
                };
                for pair in image.pairs {
                    let Ok(stream) = StreamName::new(&pair.stream) else {
                        continue;
                    };
                    state
                        .pairs
                        .insert((stream, Producer(pair.producer)), pair.into_state());
                }
                Some((sender, state))
            })
            .collect();
        let mut ledgers = BTreeMap::<SenderId, Ledger>::new();
        for (urn, ledger) in self.ledger {
            if let Some(sender) = SenderId::from_urn(&urn) {
                ledgers.entry(sender).or_default().add(&ledger);
            }
        }
        (senders, ledgers)
    }
}

impl PairImage {
    fn into_state(self) -> ProducerState {
        ProducerState {
            kind: if self.skipping {
                ProducerKind::Skipping
            } else {
                ProducerKind::Dense
            },
            accepted: Sequence(self.durable),
            durable: Sequence(self.durable),
            epoch: 0,
            last_used: Timestamp(self.last_used_us),
            rejects: self
                .rejects
                .into_iter()
                .filter_map(|(sequence, code, message)| {
                    let code = RejectCode::from_number(code)?;
                    Some(RecentReject {
                        sequence: Sequence(sequence),
                        code,
                        message,
                    })
                })
                .collect::<VecDeque<_>>(),
            rejects_total: self.rejects_total,
            refused_rows: self
                .refused_rows
                .into_iter()
                .filter_map(|(code, rows)| Some((RejectCode::from_number(code)?, rows)))
                .collect::<RefusedRows>(),
            live: None,
            ended: false,
        }
    }
}

/// Deals the identities of any number of images out to `shard_count` shards.
pub fn merge_images(images: Vec<ShardImage>, shard_count: u16) -> Vec<ShardImage> {
    let mut dealt = vec![ShardImage::default(); usize::from(shard_count.max(1))];
    let shard_of =
        |urn: &str| SenderId::from_urn(urn).map_or(ShardId(0), |sender| sender.shard(shard_count));
    for image in images {
        for sender in image.senders {
            dealt[usize::from(shard_of(&sender.urn).get())]
                .senders
                .push(sender);
        }
        for entry in image.ledger {
            dealt[usize::from(shard_of(&entry.0).get())]
                .ledger
                .push(entry);
        }
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_survives_another_number_of_shards() {
        let mut senders = HashMap::new();
        let mut ledger = BTreeMap::new();
        for index in 0..50 {
            let sender =
                SenderId::device(quiver_model::DeviceId::new(&format!("truck_{index}")).unwrap());
            let mut state = SenderState::default();
            let key = (StreamName::new("readings").unwrap(), Producer(index));
            state.settle(
                &key,
                ProducerKind::Dense,
                Sequence(index + 1),
                None,
                Timestamp(1),
                0,
            );
            state.count_refused(&key, [(RejectCode::NotEnrolled, 3)].into_iter());
            senders.insert(sender.clone(), state);
            ledger.insert(
                sender,
                Ledger {
                    stored: index,
                    ..Ledger::default()
                },
            );
        }
        let image = ShardImage::of(&senders, &ledger, Vec::new());
        let bytes = serde_json::to_vec(&image).unwrap();
        let image: ShardImage = serde_json::from_slice(&bytes).unwrap();
        let mut seen = 0;
        for (shard, image) in merge_images(vec![image], 3).into_iter().enumerate() {
            let (restored, ledgers) = image.into_state();
            for (sender, state) in restored {
                assert_eq!(usize::from(sender.shard(3).get()), shard);
                assert_eq!(
                    state.pairs.values().next().unwrap().durable,
                    senders[&sender].pairs.values().next().unwrap().durable
                );
                assert_eq!(state.pairs.values().next().unwrap().refused_rows.total(), 3);
                assert_eq!(ledgers[&sender], ledger[&sender]);
                seen += 1;
            }
        }
        assert_eq!(seen, 50);
    }
}
