//! What Ethereum's interface has no word for: the way of a transaction onto Bitcoin, and the node's state.

use alloy_primitives::{B256, Bytes};
use bitai_types::rpc::{Accepted, Inscription, InscriptionStage, NodeStatus};

use super::Context;
use super::error::{Answer, internal, invalid, refused};
use crate::state::bitcoin_hash;

/// Most transactions in one `bitai_sendTransactions`.
const MAX_BATCH: usize = 1_000;

/// A Bitcoin hash as Bitcoin's tools print it.
fn display(hash: B256) -> String {
    hex::encode(hash.iter().rev().copied().collect::<Vec<u8>>())
}

impl Context {
    /// `bitai_status`.
    pub(crate) fn status(&self) -> Answer<NodeStatus> {
        let genesis = self.chain.genesis();
        let (_, header) = self.chain.head();
        let (mempool_ready, mempool_queued) = self.mempool.counts();
        let network = serde_json::to_value(genesis.network).ok();
        let bitcoin_height = self.chain.bitcoin_height(header.number);
        Ok(NodeStatus {
            network: network
                .as_ref()
                .and_then(|n| n.as_str())
                .unwrap_or_default()
                .to_string(),
            chain_id: genesis.chain_id(),
            genesis_id: hex::encode(genesis.id()),
            height: header.number,
            bitcoin_height,
            bitcoin_hash: display(bitcoin_hash(&header)),
            bitcoin_tip: (self.bitcoin_tip)().unwrap_or(bitcoin_height),
            state_root: header.state_root,
            mempool_ready,
            mempool_queued,
            fee_recipient: self.inscriber.as_ref().map(|i| i.fee_recipient()),
            inscriber_sats: self.inscriber.as_ref().map(|i| i.balance_sats()),
        })
    }

    /// `bitai_getInscription`: null for a transaction that this node never saw.
    pub(crate) fn inscription(&self, tx_hash: B256) -> Answer<Option<Inscription>> {
        let view = self.chain.view().map_err(internal)?;
        let mut answer = Inscription {
            tx_hash,
            stage: InscriptionStage::Mempool,
            commit_txid: None,
            reveal_txid: None,
            bitcoin_height: None,
            vbytes: None,
            fee_sats: None,
            batch: None,
            payload_bytes: None,
        };
        // What this node inscribed itself, it knows best; what executed decides the reveal that counts.
        if let Some(record) = self.inscriber.as_ref().and_then(|i| i.record(tx_hash)) {
            answer.stage = InscriptionStage::Broadcast;
            answer.commit_txid = Some(display(record.commit_txid));
            answer.reveal_txid = Some(display(record.reveal_txid));
            answer.bitcoin_height = record.bitcoin_height;
            answer.vbytes = Some(record.vbytes);
            answer.fee_sats = Some(record.fee_sats);
            answer.batch = Some(record.batch);
            answer.payload_bytes = Some(record.payload_bytes);
        }
        let in_pool = self.mempool.get(tx_hash);
        if let Some((height, index)) = view.tx_place(tx_hash).map_err(internal)? {
            let txs = view.body(height).map_err(internal)?;
            answer.stage = InscriptionStage::Executed;
            answer.bitcoin_height = Some(self.chain.bitcoin_height(height));
            answer.reveal_txid = txs.get(index as usize).map(|tx| display(tx.reveal_txid));
        } else if let Some(tx) = in_pool {
            if let Some(reveal) = tx.reveal_txid {
                answer.stage = InscriptionStage::Broadcast;
                answer.reveal_txid = Some(display(reveal));
            }
        } else if let Some(dropped) = view.dropped(tx_hash).map_err(internal)? {
            answer.stage = InscriptionStage::Dropped;
            answer.bitcoin_height = Some(self.chain.bitcoin_height(dropped.height));
            answer.reveal_txid = Some(display(dropped.reveal_txid));
        } else if answer.reveal_txid.is_none() {
            return Ok(None);
        }
        Ok(Some(answer))
    }

    /// `bitai_sendTransactions`: takes them in order; the first refusal ends it and is the answer, those
    /// before it stay taken.
    pub(crate) fn send_all(&self, raws: Vec<Bytes>) -> Answer<Vec<Accepted>> {
        if raws.len() > MAX_BATCH {
            return Err(invalid(format!(
                "{} transactions; at most {MAX_BATCH} a call",
                raws.len()
            )));
        }
        let mut accepted = Vec::with_capacity(raws.len());
        for raw in raws {
            let tx_hash = self.mempool.submit(&raw).map_err(refused)?;
            let min_priority_fee = self.mempool.min_priority_fee(tx_hash).unwrap_or_default();
            accepted.push(Accepted {
                tx_hash,
                min_priority_fee,
            });
        }
        Ok(accepted)
    }
}
