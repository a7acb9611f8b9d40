//! The order of transactions inside a block (PROTOCOL 15): dearest first, ties by position, nonces of a
//! sender in sequence.

use alloy_primitives::{Address, B256};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use super::tx::SignedTx;
use crate::block::Position;

/// A transaction of an envelope, waiting for its turn.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Decoded.
    pub tx: SignedTx,
    /// What the fee recipient gets per gas, wei.
    pub priority_fee: u128,
    /// Envelope's place.
    pub position: Position,
    /// Place in the envelope.
    pub index: u32,
    /// Who gets the priority fee.
    pub fee_recipient: Address,
    /// Txid of the reveal, internal byte order.
    pub reveal_txid: B256,
}

impl Candidate {
    fn place(&self) -> (Position, u32) {
        (self.position, self.index)
    }
}

/// A sender's claim to be next: what its first transaction pays, then its place.
type Turn = (u128, Reverse<(Position, u32)>, Address);

/// Senders with something to run, the dearest first transaction on top. A sender is in the heap once, with
/// the first transaction of its queue.
#[derive(Debug, Default)]
pub struct Order {
    heap: BinaryHeap<Turn>,
    queues: BTreeMap<Address, VecDeque<Candidate>>,
}

impl Order {
    /// Sorts candidates into queues: by nonce, then the dearest, then by place.
    pub fn new(candidates: Vec<Candidate>) -> Self {
        let mut queues: BTreeMap<Address, Vec<Candidate>> = BTreeMap::new();
        for candidate in candidates {
            queues.entry(candidate.tx.sender).or_default().push(candidate);
        }
        let mut order = Order::default();
        for (sender, mut queue) in queues {
            queue.sort_by_key(|c| {
                (
                    alloy::consensus::Transaction::nonce(&c.tx.tx),
                    Reverse(c.priority_fee),
                    c.place(),
                )
            });
            order.queues.insert(sender, queue.into());
            order.lift(sender);
        }
        order
    }

    /// Puts a sender's first transaction on the heap.
    fn lift(&mut self, sender: Address) {
        if let Some(first) = self.queues.get(&sender).and_then(VecDeque::front) {
            self.heap
                .push((first.priority_fee, Reverse(first.place()), sender));
        }
    }

    /// Takes the next transaction; the sender's following one takes its place in the race.
    pub fn take(&mut self) -> Option<Candidate> {
        let (_, _, sender) = self.heap.pop()?;
        let candidate = self.queues.get_mut(&sender)?.pop_front();
        self.lift(sender);
        candidate
    }
}
