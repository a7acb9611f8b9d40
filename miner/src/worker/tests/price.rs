//! A neuron against a node whose price and mempool move: what waits pays more, and nothing is paid twice.

use super::{
    Stage,
    market::{Market, Shared},
};
use crate::{
    chain::send::Call,
    journal::{Signed, Step},
    stake,
};
use alloy::consensus::Transaction;
use alloy_primitives::{B256, U256};

async fn stage() -> Stage {
    Stage::new(super::job(B256::ZERO)).await
}

impl Stage {
    fn asks(&self, quote: u128) {
        self.market.lock().unwrap().quote = quote;
    }

    fn commit(&self) -> Call {
        self.neuron
            .hub
            .commit(U256::ONE, B256::repeat_byte(1), B256::repeat_byte(2))
    }

    async fn submit(&mut self) {
        let call = self.commit();
        let done = self.neuron.submit(U256::ONE, Step::Commit, 0, call).await;
        done.unwrap();
    }

    /// What the journal knows to be on its way.
    fn noted(&self) -> Signed {
        self.entry().sent[&Step::Commit].clone()
    }

    /// What waits in the mempool: hash and tip. The journal must say the same.
    fn waiting(&self) -> (B256, u128) {
        let market = self.market.lock().unwrap();
        let tx = market.pool.as_ref().unwrap();
        let noted = self.noted();
        assert_eq!(noted.hash, *tx.tx_hash(), "the journal knows what waits");
        assert_eq!(noted.nonce, tx.nonce());
        (*tx.tx_hash(), tx.max_priority_fee_per_gas().unwrap())
    }
}

#[tokio::test]
async fn a_step_that_waits_pays_more_once_the_price_has_risen() {
    let mut s = stage().await;
    s.submit().await;
    let first = s.waiting();
    assert_eq!(first.1, 125, "a quarter above the price");
    s.submit().await;
    s.asks(120);
    s.submit().await;
    assert_eq!(s.waiting(), first, "it still pays enough");

    s.asks(1000);
    s.submit().await;
    let second = s.waiting();
    assert!(second.0 != first.0 && second.1 >= 1000, "{second:?}");
    s.submit().await;
    assert_eq!(s.waiting(), second, "once for one rise");
    // A rise of little more than what is paid: still a tenth dearer, or no mempool takes it.
    s.asks(1251);
    s.submit().await;
    assert!(s.waiting().1 >= 1375);
}

#[tokio::test]
async fn a_neuron_that_dies_between_journal_and_mempool_sends_the_dearer_one_when_it_comes_back() {
    let mut s = stage().await;
    s.submit().await;
    s.asks(1000);
    let dearer = s.neuron.sender.dearer(&s.noted()).await.unwrap().unwrap();
    s.note(|e| {
        e.sent.insert(Step::Commit, dearer.clone());
    });
    let mut s = s.restarted();
    s.submit().await;
    assert_eq!(s.waiting().0, dearer.hash);
    s.submit().await;
    assert_eq!(s.waiting().0, dearer.hash);
}

#[tokio::test]
async fn a_transaction_that_is_already_being_inscribed_is_left_alone() {
    let mut s = stage().await;
    s.submit().await;
    let (first, old) = (s.waiting(), s.noted());
    // The inscriber takes it between the look and the sending.
    s.asks(1000);
    s.market.lock().unwrap().in_flight = true;
    s.neuron.pay_more(U256::ONE, Step::Commit, old).await.unwrap();
    assert_eq!(s.waiting(), first, "the journal holds what the node holds");
    s.submit().await;
    assert_eq!(s.waiting(), first);
}

/// Waits until a transaction is in the mempool, and executes it.
async fn executed(market: &Shared) {
    while market.lock().unwrap().pool.is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    market.lock().unwrap().executed = true;
}

#[tokio::test]
async fn a_stake_on_its_way_is_seen_to_its_end_and_not_sent_twice() {
    let s = stage().await;
    let (n, call) = (&s.neuron, s.neuron.hub.stake(U256::from(7)));
    // The process dies right after it sent; then right before.
    for sent in [true, false] {
        *s.market.lock().unwrap() = Market::default();
        let note = &mut |s: &Signed| n.journal.set_stake(Some(s));
        let signed = n.sender.send_noted(&call, note).await.unwrap();
        if !sent {
            s.market.lock().unwrap().pool = None;
        }
        let settle = stake::settle(&n.hub, &n.sender, &n.journal);
        let (settled, ()) = tokio::join!(settle, executed(&s.market));
        settled.unwrap();
        assert_eq!(n.journal.stake().unwrap(), None);
        let market = s.market.lock().unwrap();
        assert_eq!(
            *market.pool.as_ref().unwrap().tx_hash(),
            signed.hash,
            "the same bytes"
        );
    }
}

#[tokio::test]
async fn a_stake_that_no_node_takes_any_more_is_given_up() {
    let s = stage().await;
    let n = &s.neuron;
    let signed = n.sender.sign(&n.hub.stake(U256::from(7)), 0, 0).await.unwrap();
    n.journal.set_stake(Some(&signed)).unwrap();
    s.market.lock().unwrap().refuses = Some("insufficient funds");
    stake::settle(&n.hub, &n.sender, &n.journal).await.unwrap();
    assert_eq!(n.journal.stake().unwrap(), None);
}
