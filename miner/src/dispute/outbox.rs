//! Moves on their way: each is signed once and followed until it is executed or refused, by the process after this one
//! too where they are kept on disk. Which move is due says the chain; what is kept here only keeps one from being paid twice.

use std::collections::BTreeMap;

use alloy_primitives::Address;
use bitai_types::rpc::InscriptionStage;

use super::moves::Moves;
use crate::{
    chain::{
        Refusal, Sender,
        send::{Call, RAISES_MAX, is_in_flight, is_too_cheap},
    },
    datadir::DataDir,
    exit::Failure,
    journal::Signed,
};

/// Heights after which a transaction that stands before a due move, and that nobody here follows, is replaced by it.
const STUCK_AFTER: u64 = 3;

/// One account's moves.
#[derive(Debug)]
pub struct Outbox {
    sender: Sender,
    sent: Moves,
    /// Height of the first push.
    first: Option<u64>,
    /// Nonce behind what was on its way when this process started.
    started: Option<u64>,
    /// The next nonce to be executed, and the height at which it became that.
    still: Option<(u64, u64)>,
    /// The last refusal of a move: said once.
    refused: BTreeMap<String, String>,
}

impl Outbox {
    /// An account without moves.
    pub fn new(sender: Sender) -> Self {
        Self {
            sender,
            sent: Moves::default(),
            first: None,
            started: None,
            still: None,
            refused: BTreeMap::new(),
        }
    }

    /// The same with the moves that a process before has signed for this seat (its name, the contract that it sits
    /// before), and kept on disk from now on.
    pub fn kept(sender: Sender, data: &DataDir, seat: (&str, Address)) -> Self {
        let file = Moves::path(data, seat, sender.node().chain_id(), sender.address());
        Self {
            sent: Moves::at(file),
            ..Self::new(sender)
        }
    }

    /// The account.
    pub fn sender(&self) -> &Sender {
        &self.sender
    }

    /// Forgets the moves whose names begin so: what they were about is over.
    pub fn forget(&mut self, prefix: &str) {
        self.sent.retain(|name| !name.starts_with(prefix));
        self.refused.retain(|name, _| !name.starts_with(prefix));
    }

    /// Whether a move of this name was sent and is neither executed nor lost.
    pub fn is_under_way(&self, name: &str) -> bool {
        self.sent.contains(name)
    }

    /// Brings a move nearer to execution: signs and sends it, sends it again where the node lost it, pays more where it
    /// waits. To be called at every look while the chain says that the move is due; `height` is one that was executed
    /// before that was read, `name` is the move's own. Gives `true` when it left now. A refusal is logged, and the next
    /// look decides anew.
    pub async fn push(&mut self, height: u64, name: &str, call: &Call) -> Result<bool, Failure> {
        match self.try_push(height, name, call).await {
            Ok(sent) => {
                self.refused.remove(name);
                Ok(sent)
            }
            Err(Refusal::Down(failure)) => Err(failure),
            Err(said) => {
                let words = said.into_failure("node").to_string();
                if self.refused.get(name) != Some(&words) {
                    tracing::warn!(r#move = name, "refused: {words}");
                    self.refused.insert(name.to_owned(), words);
                }
                Ok(false)
            }
        }
    }

    async fn try_push(&mut self, height: u64, name: &str, call: &Call) -> Result<bool, Refusal> {
        let node = std::sync::Arc::clone(self.sender.node());
        let who = self.sender.address();
        let latest = node.nonce(who, "latest").await?;
        let pending = node.nonce(who, "pending").await?;
        let is_stuck = self.is_stuck(latest, height);
        let old = self.sent.get(name);
        // Every due move has been pushed at one of these heights.
        if height.saturating_sub(*self.first.get_or_insert(height)) >= STUCK_AFTER {
            self.sent.forget_old();
        }
        if let Some(old) = old {
            match node.receipt(old.hash).await? {
                Some(receipt) if receipt.status() => {
                    // The state shows it where it was read after that; due all the same, the move is due once more.
                    if receipt.block_number.is_none_or(|at| at > height) {
                        return Ok(false);
                    }
                    self.sent.set(name, None);
                }
                Some(_) => {
                    tracing::warn!(r#move = name, tx = %old.hash, "reverted; deciding anew");
                    self.sent.set(name, None);
                    return Ok(false);
                }
                None => {
                    return match node.inscription(old.hash).await?.map(|w| w.stage) {
                        Some(InscriptionStage::Broadcast | InscriptionStage::Executed) => Ok(false),
                        // A transaction before it was let go, so it would wait for ever.
                        Some(InscriptionStage::Mempool) if pending < old.nonce => {
                            self.sign(name, call, None).await
                        }
                        Some(InscriptionStage::Mempool) if is_stuck && latest < old.nonce => {
                            self.sign(name, call, Some(latest)).await
                        }
                        Some(InscriptionStage::Mempool) => self.pay_more(name, old).await,
                        Some(InscriptionStage::Dropped) | None => self.send_again(name, old).await,
                    };
                }
            }
        }
        let started = *self.started.get_or_insert(pending);
        // One of those on their way when this process started may be the very move that is due. What the node has lost
        // meanwhile is not waited for.
        if latest >= started.min(pending) {
            self.sign(name, call, None).await
        } else if is_stuck {
            self.sign(name, call, Some(latest)).await
        } else {
            Ok(false)
        }
    }

    /// Whether the next transaction to be executed has stood there for too long and is none that is followed here: one
    /// of another process, before or beside this one, that pays too little.
    fn is_stuck(&mut self, latest: u64, height: u64) -> bool {
        let since = match self.still {
            // After a reorg heights may be counted again.
            Some((nonce, since)) if nonce == latest && since <= height => since,
            _ => height,
        };
        self.still = Some((latest, since));
        height - since >= STUCK_AFTER && !self.sent.follows(latest)
    }

    /// Sends a move under the next free nonce, or in the place of what the node holds under one that it `replaces`;
    /// `true` when it left.
    async fn sign(&mut self, name: &str, call: &Call, replaces: Option<u64>) -> Result<bool, Refusal> {
        let sender = self.sender.clone();
        let _turn = sender.turn().await;
        let nonce = match replaces {
            Some(nonce) => nonce,
            None => sender.node().nonce(sender.address(), "pending").await?,
        };
        let before = self.sent.get(name);
        let mut raises = 0;
        loop {
            let signed = sender.sign(call, nonce, raises).await?;
            // Noted before it leaves: where nobody knows whether it arrived, the same bytes are sent again.
            self.sent.set(name, Some(signed.clone()));
            let refused = match sender.broadcast(&signed).await {
                Ok(()) => return Ok(true),
                Err(down @ Refusal::Down(_)) => return Err(down),
                Err(e) => e,
            };
            self.sent.set(name, before.clone());
            match refused {
                e if is_in_flight(&e) => return Ok(false),
                e if raises < RAISES_MAX && is_too_cheap(&e) => raises += 1,
                e => return Err(e),
            }
        }
    }

    /// Sends what the node has lost.
    async fn send_again(&mut self, name: &str, old: Signed) -> Result<bool, Refusal> {
        match self.sender.broadcast(&old).await {
            Ok(()) => Ok(false),
            Err(down @ Refusal::Down(_)) => Err(down),
            Err(e) if is_in_flight(&e) => Ok(false),
            // Its nonce went to another, or its price is too low now: made anew at the next look.
            Err(_) => {
                self.sent.set(name, None);
                Ok(false)
            }
        }
    }

    async fn pay_more(&mut self, name: &str, old: Signed) -> Result<bool, Refusal> {
        let Some(dearer) = self.sender.dearer(&old).await? else {
            return Ok(false);
        };
        self.sent.set(name, Some(dearer.clone()));
        match self.sender.broadcast(&dearer).await {
            Ok(()) => Ok(false),
            Err(down @ Refusal::Down(_)) => Err(down),
            Err(e) => {
                // The cheaper one is what may still execute.
                self.sent.set(name, Some(old));
                if is_in_flight(&e) { Ok(false) } else { Err(e) }
            }
        }
    }
}
