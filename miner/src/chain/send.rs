//! Signing and sending: one account's transactions, priced for Bitcoin inscription, waited for until executed.

use std::{sync::Arc, time::Duration};

use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope},
    eips::eip2718::Encodable2718,
    rpc::types::{TransactionReceipt, TransactionRequest},
    signers::{SignerSync, local::PrivateKeySigner},
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U64, U128, U256};

use super::node::{Node, Refusal};
use crate::{exit::Failure, journal::Signed};

/// How often an execution is looked for.
const POLL: Duration = Duration::from_millis(500);
/// Times that a price is raised when the node says that it is too low.
pub const RAISES_MAX: u32 = 4;

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
}

impl Sender {
    /// An account that signs with `signer`.
    pub fn new(node: Arc<Node>, signer: PrivateKeySigner) -> Self {
        Self { node, signer }
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
        let request = TransactionRequest {
            from: Some(self.address()),
            to: Some(call.to),
            value: Some(call.value),
            input: call.data.clone().into(),
            ..Default::default()
        };
        let gas: u64 = self
            .node
            .request::<_, U64>("eth_estimateGas", (request,))
            .await?
            .to();
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
            // State may change between estimate and execution; what is not used is not paid.
            gas_limit: gas.saturating_add(gas / 5),
            max_fee_per_gas: base.saturating_mul(2).saturating_add(tip),
            max_priority_fee_per_gas: tip,
            to: call.to,
            value: call.value,
            access_list: Default::default(),
            input: call.data.clone(),
        };
        let signature = self.signer.sign_hash_sync(&tx.signature_hash()).map_err(|e| {
            Refusal::Down(Failure::Internal(
                anyhow::Error::new(e).context("signing a transaction"),
            ))
        })?;
        let envelope = TxEnvelope::from(tx.into_signed(signature));
        Ok(Signed {
            hash: *envelope.tx_hash(),
            nonce,
            attempt: 0,
            raw: envelope.encoded_2718().into(),
        })
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
        let mut raises = 0;
        loop {
            let nonce = self.node.nonce(self.address(), "pending").await?;
            let signed = self.sign(call, nonce, raises).await?;
            match self.broadcast(&signed).await {
                Ok(()) => return Ok(signed),
                Err(e) if raises < RAISES_MAX && is_too_cheap(&e) => raises += 1,
                Err(e) => return Err(e),
            }
        }
    }

    /// Waits until a transaction is executed in a Bitcoin block; re-sends it if the node loses it.
    pub async fn wait(
        &self,
        signed: &Signed,
        what: &str,
        timeout: Duration,
    ) -> Result<TransactionReceipt, Failure> {
        let until = tokio::time::Instant::now() + timeout;
        let mut quiet = 0u32;
        loop {
            if let Some(receipt) = self
                .node
                .receipt(signed.hash)
                .await
                .map_err(|e| e.into_failure(what))?
            {
                if receipt.status() {
                    return Ok(receipt);
                }
                return Err(Failure::Transaction {
                    what: what.to_owned(),
                    why: format!("transaction {} was executed and reverted", signed.hash),
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
                // After a reorg or a restart of the node; a refusal shows in the receipt or the timeout.
                let _ = self.broadcast(signed).await;
            }
            tokio::time::sleep(POLL).await;
        }
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

/// Whether a refusal says that the nonce was used by another transaction.
pub fn is_nonce_used(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Said { message, .. } if message.to_lowercase().contains("nonce too low"))
}
