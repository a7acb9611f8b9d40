//! Signing and sending: one account's transactions, priced for Bitcoin inscription, waited for until executed.

use std::{sync::Arc, time::Duration};

use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope},
    eips::eip2718::{Decodable2718, Encodable2718},
    rpc::types::{TransactionReceipt, TransactionRequest},
    signers::{SignerSync, local::PrivateKeySigner},
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U64, U128, U256};

use super::node::{Node, Refusal};
use crate::{exit::Failure, journal::Signed};
use bitai_types::{chain::GAS_PER_BYTE, rpc::InscriptionStage};

/// How often an execution is looked for.
const POLL: Duration = Duration::from_millis(500);
/// Times that a price is raised when the node says that it is too low.
pub const RAISES_MAX: u32 = 4;

/// Times that data is made longer because its gas asks for more bytes, each time three times as long.
const PADS_MAX: u32 = 4;
/// Least bytes of a transaction beside its data: signature, receiver, numbers.
const FRAME_BYTES: usize = 96;

/// What is to be sent.
#[derive(Debug, Clone)]
pub struct Call {
    /// Contract or account; or a creation, whose data is init code.
    pub to: TxKind,
    /// Calldata.
    pub data: Bytes,
    /// Wei sent along.
    pub value: U256,
}

/// One account on one chain.
#[derive(Debug, Clone)]
pub struct Sender {
    node: Arc<Node>,
    signer: PrivateKeySigner,
    /// Held from reading a nonce to sending: clones of one sender work side by side.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Sender {
    /// An account that signs with `signer`.
    pub fn new(node: Arc<Node>, signer: PrivateKeySigner) -> Self {
        Self {
            node,
            signer,
            turn: Arc::default(),
        }
    }

    /// The turn to take the next nonce; held until what is signed with it has left. Clones of this sender wait.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// The account.
    pub fn address(&self) -> Address {
        self.signer.address()
    }

    /// The nodes it sends to.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The key, for secrets derived from it.
    pub fn signer(&self) -> &PrivateKeySigner {
        &self.signer
    }

    /// Prices and signs; fails with the contract's reason where the call would revert. `raises` doubles the
    /// priority fee so many times.
    pub async fn sign(&self, call: &Call, nonce: u64, raises: u32) -> Result<Signed, Refusal> {
        let (gas, input) = self.estimate(call).await?;
        let tip: u128 = self
            .node
            .request::<_, U128>("eth_maxPriorityFeePerGas", ())
            .await?
            .to();
        let base = self.node.base_fee().await?.saturating_to::<u128>();
        // A quarter above the suggestion: the satoshi price may move before the batch is made.
        let tip = tip.max(1).saturating_mul(5) / 4;
        let tip = tip.saturating_mul(1 << raises.min(RAISES_MAX));
        let tx = TxEip1559 {
            chain_id: self.node.chain_id(),
            nonce,
            gas_limit: with_margin(gas),
            max_fee_per_gas: base.saturating_mul(2).saturating_add(tip),
            max_priority_fee_per_gas: tip,
            to: call.to,
            value: call.value,
            access_list: Default::default(),
            input,
        };
        self.seal(tx, 0)
    }

    /// The gas of a call, and its data with as many zeros behind as that gas asks for bytes: a contract's ABI ignores them.
    async fn estimate(&self, call: &Call) -> Result<(u64, Bytes), Refusal> {
        let mut tries = 0;
        let mut data = call.data.to_vec();
        let gas: u64 = loop {
            let request = TransactionRequest {
                from: Some(self.address()),
                to: Some(call.to),
                value: Some(call.value),
                input: Bytes::from(data.clone()).into(),
                ..Default::default()
            };
            match self.node.request::<_, U64>("eth_estimateGas", (request,)).await {
                Ok(gas) => break gas.to(),
                Err(e) if tries < PADS_MAX && asks_for_bytes(&e) && matches!(call.to, TxKind::Call(_)) => {
                    tries += 1;
                    data.resize(data.len().saturating_mul(3).max(1_024), 0);
                }
                Err(e) => return Err(e),
            }
        };
        let bytes = with_margin(gas).div_ceil(GAS_PER_BYTE);
        let bytes = usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .saturating_sub(FRAME_BYTES);
        if matches!(call.to, TxKind::Call(_)) {
            data.resize(call.data.len().max(bytes), 0);
        }
        Ok((gas, data.into()))
    }

    fn seal(&self, tx: TxEip1559, attempt: u8) -> Result<Signed, Refusal> {
        crate::published::refuse(self.address(), tx.chain_id).map_err(Refusal::Down)?;
        let signature = self.signer.sign_hash_sync(&tx.signature_hash()).map_err(|e| {
            Refusal::Down(Failure::Internal(
                anyhow::Error::new(e).context("signing a transaction"),
            ))
        })?;
        let nonce = tx.nonce;
        let envelope = TxEnvelope::from(tx.into_signed(signature));
        Ok(Signed {
            hash: *envelope.tx_hash(),
            nonce,
            attempt,
            raw: envelope.encoded_2718().into(),
        })
    }

    /// The same transaction at a higher price, where the node asks more by now than `signed` pays: same nonce, so
    /// that only one of the two can execute, and both fees at least a tenth dearer, so that a mempool takes it in
    /// the other's place. `None` where the price still suffices.
    pub async fn dearer(&self, signed: &Signed) -> Result<Option<Signed>, Refusal> {
        let quote: u128 = self
            .node
            .request::<_, U128>("eth_maxPriorityFeePerGas", ())
            .await?
            .to();
        let base = self.node.base_fee().await?.saturating_to::<u128>();
        let envelope = TxEnvelope::decode_2718(&mut signed.raw.as_ref()).map_err(|e| {
            Refusal::Down(Failure::Internal(
                anyhow::Error::new(e).context("a transaction in the journal"),
            ))
        })?;
        let TxEnvelope::Eip1559(old) = envelope else {
            return Ok(None);
        };
        let old = old.tx();
        let pays = old
            .max_fee_per_gas
            .saturating_sub(base)
            .min(old.max_priority_fee_per_gas);
        if pays >= quote {
            return Ok(None);
        }
        let tenth_more = |fee: u128| fee.saturating_add(fee.div_ceil(10).max(1));
        let tip = tenth_more(old.max_priority_fee_per_gas).max(quote.saturating_mul(5) / 4);
        let max_fee = tenth_more(old.max_fee_per_gas).max(base.saturating_mul(2).saturating_add(tip));
        let tx = TxEip1559 {
            max_priority_fee_per_gas: tip,
            max_fee_per_gas: max_fee,
            ..old.clone()
        };
        self.seal(tx, signed.attempt).map(Some)
    }

    /// Whether a transaction lies in the node's mempool and is not yet on its way to Bitcoin.
    pub async fn waits(&self, signed: &Signed) -> Result<bool, Refusal> {
        let way = self.node.inscription(signed.hash).await?;
        Ok(way.is_some_and(|w| w.stage == InscriptionStage::Mempool))
    }

    /// Sends bytes that were signed before; that the node has them already is success.
    pub async fn broadcast(&self, signed: &Signed) -> Result<(), Refusal> {
        match self
            .node
            .request::<_, B256>("eth_sendRawTransaction", (signed.raw.clone(),))
            .await
        {
            Ok(_) => Ok(()),
            Err(Refusal::Said { message, .. }) if message.to_lowercase().contains("already known") => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Signs with the next nonce and sends, raising the price while the node finds it too low.
    pub async fn send(&self, call: &Call) -> Result<Signed, Refusal> {
        self.send_with(call, &mut |_| Ok(())).await
    }

    /// [`Sender::send`]; `note` hears what is signed before it leaves, and where it fails nothing leaves.
    pub async fn send_noted(
        &self,
        call: &Call,
        note: &mut (dyn FnMut(&Signed) -> Result<(), Failure> + Send),
    ) -> Result<Signed, Failure> {
        self.send_with(call, note)
            .await
            .map_err(|e| e.into_failure("sending a transaction"))
    }

    async fn send_with(
        &self,
        call: &Call,
        note: &mut (dyn FnMut(&Signed) -> Result<(), Failure> + Send),
    ) -> Result<Signed, Refusal> {
        let mut raises = 0;
        let _turn = self.turn().await;
        loop {
            let nonce = self.node.nonce(self.address(), "pending").await?;
            let signed = self.sign(call, nonce, raises).await?;
            note(&signed).map_err(Refusal::Down)?;
            match self.broadcast(&signed).await {
                Ok(()) => return Ok(signed),
                Err(e) if raises < RAISES_MAX && is_too_cheap(&e) => raises += 1,
                Err(e) => return Err(e),
            }
        }
    }

    /// Waits until a transaction is executed in a Bitcoin block; re-sends it if the node loses it, and pays more
    /// where it waits and the price has risen.
    pub async fn wait(
        &self,
        signed: &Signed,
        what: &str,
        timeout: Duration,
    ) -> Result<TransactionReceipt, Failure> {
        let until = tokio::time::Instant::now() + timeout;
        let mut quiet = 0u32;
        // All of one nonce, the dearest last: at most one of them executes.
        let mut sent = vec![signed.clone()];
        loop {
            for one in &sent {
                let receipt = self.node.receipt(one.hash).await;
                let Some(receipt) = receipt.map_err(|e| e.into_failure(what))? else {
                    continue;
                };
                if receipt.status() {
                    return Ok(receipt);
                }
                return Err(Failure::Transaction {
                    what: what.to_owned(),
                    why: format!("transaction {} was executed and reverted", one.hash),
                });
            }
            if tokio::time::Instant::now() > until {
                return Err(Failure::Transaction {
                    what: what.to_owned(),
                    why: format!(
                        "transaction {} was not executed within {} s",
                        signed.hash,
                        timeout.as_secs()
                    ),
                });
            }
            quiet += 1;
            if quiet.is_multiple_of(20) {
                let newest = sent.last().unwrap_or(signed).clone();
                if let Some(dearer) = self.nudge(&newest).await {
                    tracing::info!(what, tx = %dearer.hash, "the price has risen; paying more");
                    sent.push(dearer);
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends a transaction again that the node has lost, after a reorg or a restart, and replaces one that pays too
    /// little by now; gives the dearer one where the node took it. Refusals show in the receipt or the timeout.
    async fn nudge(&self, signed: &Signed) -> Option<Signed> {
        let waits = self.waits(signed).await.ok()?;
        if !waits && !matches!(self.broadcast(signed).await, Err(e) if is_too_cheap(&e)) {
            return None;
        }
        let dearer = self.dearer(signed).await.ok()??;
        self.broadcast(&dearer).await.ok()?;
        Some(dearer)
    }

    /// Sends and waits.
    pub async fn execute(
        &self,
        call: &Call,
        what: &str,
        timeout: Duration,
    ) -> Result<TransactionReceipt, Failure> {
        let signed = self.send(call).await.map_err(|e| e.into_failure(what))?;
        self.wait(&signed, what, timeout).await
    }
}

/// State may change between estimate and execution; what is not used is not paid.
fn with_margin(gas: u64) -> u64 {
    gas.saturating_add(gas / 5)
}

/// Whether an estimate failed for want of gas that more bytes would bring (`docs/spec/chain.md`).
fn asks_for_bytes(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Said { message, .. } if message.contains("append calldata"))
}

/// Whether a refusal is about the price, so that a higher one may pass.
pub fn is_too_cheap(refusal: &Refusal) -> bool {
    let Refusal::Said { message, .. } = refusal else {
        return false;
    };
    let message = message.to_lowercase();
    [
        "underpriced",
        "priority fee",
        "fee too low",
        "less than block base fee",
    ]
    .iter()
    .any(|w| message.contains(w))
}

/// Whether a refusal says that another transaction of this nonce is already on its way to Bitcoin.
pub fn is_in_flight(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Said { message, .. } if message.to_lowercase().contains("already being inscribed"))
}

/// Whether a refusal says that the nonce was used by another transaction.
pub fn is_nonce_used(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Said { message, .. } if message.to_lowercase().contains("nonce too low"))
}
