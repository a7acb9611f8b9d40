//! Moves on their way: each is signed once and followed until it is executed or refused. Which move is due says the
//! chain; what is kept here only keeps a move from being paid twice.

use std::collections::BTreeMap;

use bitai_types::rpc::InscriptionStage;

use crate::{
    chain::{
        Refusal, Sender,
        send::{Call, RAISES_MAX, is_in_flight, is_too_cheap},
    },
    exit::Failure,
    journal::Signed,
};

/// One account's moves.
#[derive(Debug)]
pub struct Outbox {
    sender: Sender,
    sent: BTreeMap<String, Signed>,
    /// Nonce behind what was on its way when this process started.
    started: Option<u64>,
}

impl Outbox {
    /// An account without moves.
    pub fn new(sender: Sender) -> Self {
        Self {
            sender,
            sent: BTreeMap::new(),
            started: None,
        }
    }

    /// The account.
    pub fn sender(&self) -> &Sender {
        &self.sender
    }

    /// Forgets the moves whose names begin so: what they were about is over.
    pub fn forget(&mut self, prefix: &str) {
        self.sent.retain(|name, _| !name.starts_with(prefix));
    }

    /// Whether a move of this name was sent and is neither executed nor lost.
    pub fn is_under_way(&self, name: &str) -> bool {
        self.sent.contains_key(name)
    }

    /// Brings a move nearer to execution: signs and sends it, sends it again where the node lost it, pays more where it
    /// waits. To be called at every look while the chain says that the move is due; `name` is the move's own. Gives
    /// `true` when it left now. A refusal is logged, and the next look decides anew.
    pub async fn push(&mut self, name: &str, call: &Call) -> Result<bool, Failure> {
        match self.try_push(name, call).await {
            Ok(sent) => Ok(sent),
            Err(Refusal::Down(failure)) => Err(failure),
            Err(said) => {
                tracing::warn!(r#move = name, "refused: {}", said.into_failure("node"));
                Ok(false)
            }
        }
    }

    async fn try_push(&mut self, name: &str, call: &Call) -> Result<bool, Refusal> {
        let node = std::sync::Arc::clone(self.sender.node());
        if let Some(old) = self.sent.get(name).cloned() {
            match node.receipt(old.hash).await? {
                // Executed: the state shows it, or a reorg has undone it since the state was read.
                Some(receipt) if receipt.status() => return Ok(false),
                Some(_) => {
                    tracing::warn!(r#move = name, tx = %old.hash, "reverted; deciding anew");
                    self.sent.remove(name);
                    return Ok(false);
                }
                None => {}
            }
            return match node.inscription(old.hash).await?.map(|w| w.stage) {
                Some(InscriptionStage::Broadcast | InscriptionStage::Executed) => Ok(false),
                Some(InscriptionStage::Mempool) => self.pay_more(name, old).await,
                Some(InscriptionStage::Dropped) | None => match self.sender.broadcast(&old).await {
                    Ok(()) => Ok(false),
                    Err(down @ Refusal::Down(_)) => Err(down),
                    Err(e) if is_in_flight(&e) => Ok(false),
                    // Its nonce went to another, or its price is too low now: made anew at the next look.
                    Err(_) => {
                        self.sent.remove(name);
                        Ok(false)
                    }
                },
            };
        }
        if !self.is_clear().await? {
            return Ok(false);
        }
        let mut raises = 0;
        loop {
            let nonce = node.nonce(self.sender.address(), "pending").await?;
            let signed = self.sender.sign(call, nonce, raises).await?;
            match self.sender.broadcast(&signed).await {
                Ok(()) => {
                    self.sent.insert(name.to_owned(), signed);
                    return Ok(true);
                }
                Err(e) if raises < RAISES_MAX && is_too_cheap(&e) => raises += 1,
                Err(e) => return Err(e),
            }
        }
    }

    /// Whether everything is executed that was on its way when this process started: one of those may be the very move
    /// that is due.
    async fn is_clear(&mut self) -> Result<bool, Refusal> {
        let node = self.sender.node();
        let who = self.sender.address();
        let pending = node.nonce(who, "pending").await?;
        let started = *self.started.get_or_insert(pending);
        // What the node has lost meanwhile is not waited for.
        Ok(node.nonce(who, "latest").await? >= started.min(pending))
    }

    async fn pay_more(&mut self, name: &str, old: Signed) -> Result<bool, Refusal> {
        let Some(dearer) = self.sender.dearer(&old).await? else {
            return Ok(false);
        };
        match self.sender.broadcast(&dearer).await {
            Ok(()) => {
                self.sent.insert(name.to_owned(), dearer);
                Ok(false)
            }
            Err(e) if is_in_flight(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }
}
