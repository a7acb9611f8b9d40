//! Who plays: several challengers dispute one claim in parallel, each in a game of its own, over one published
//! tree. A challenger that loses is out of its own game only; a conviction ends the claim for everyone.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::Address;
use bitai_kernels::Hash;

use super::{DisputeError, Ground, Judge, Verdict, levels::ASKS_MAX, msg::Ask};

/// An ask that waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenAsk {
    /// What is asked.
    pub(super) ask: Ask,
    /// Whose games wait for it.
    pub(super) waiting: BTreeSet<Address>,
}

/// The games about one claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seats {
    /// Every challenger that ever joined; `Some` is how it lost.
    players: BTreeMap<Address, Option<Ground>>,
    /// Asks that each made.
    asks: BTreeMap<Address, u32>,
    /// What is asked and not answered, by the ask's id.
    pub(super) open: BTreeMap<Hash, OpenAsk>,
    /// Whether the window for new challengers is over.
    closed: bool,
    /// What convicted the claim.
    pub(super) convicted: Option<Ground>,
}

impl Judge {
    /// Opens a game for a challenger. Refused after the window, after a conviction, and a second time.
    pub fn join(&mut self, who: Address) -> Result<(), DisputeError> {
        self.undecided()?;
        if self.seats.closed {
            return Err(DisputeError::Seat("the window for new challengers is over"));
        }
        if self.seats.players.contains_key(&who) {
            return Err(DisputeError::Seat("this challenger has had its game"));
        }
        self.seats.players.insert(who, None);
        Ok(())
    }

    /// Ends the window for new challengers; games under way go on.
    pub fn close_window(&mut self) {
        self.seats.closed = true;
    }

    /// What convicted the claim, once something has.
    pub fn convicted(&self) -> Option<Ground> {
        self.seats.convicted
    }

    /// Whether the claim stands: nothing convicted it, no game goes on and none can be opened.
    pub fn stands(&self) -> bool {
        let s = &self.seats;
        s.closed && s.convicted.is_none() && s.players.values().all(Option::is_some)
    }

    /// How a challenger's game ended: guilty for everyone who had not lost before, cleared for who lost.
    /// `None` while it plays, and for who never joined a claim that is not convicted.
    pub fn verdict(&self, who: Address) -> Option<Verdict> {
        let lost = self.seats.players.get(&who).copied().flatten();
        let convicted = self.seats.convicted.map(Verdict::Guilty);
        lost.map(Verdict::Cleared).or(convicted)
    }

    /// Everything that is asked and not answered: what the defendant owes.
    pub fn owed(&self) -> impl Iterator<Item = (Hash, Ask)> + '_ {
        self.seats.open.iter().map(|(id, open)| (*id, open.ask))
    }

    /// Ends the game of a challenger in which a clock ran out: the defendant's while the challenger waits for
    /// an answer, else the challenger's.
    pub fn timeout(&mut self, who: Address) -> Result<Verdict, DisputeError> {
        self.playing(who)?;
        let owed = self.seats.open.values().any(|open| open.waiting.contains(&who));
        Ok(if owed {
            self.convict(Ground::Silence)
        } else {
            self.clear(who, Ground::Silence)
        })
    }

    /// A challenger whose game goes on.
    pub(super) fn playing(&self, who: Address) -> Result<(), DisputeError> {
        self.undecided()?;
        match self.seats.players.get(&who) {
            Some(None) => Ok(()),
            Some(Some(_)) => Err(DisputeError::Seat("this challenger has lost its game")),
            None => Err(DisputeError::Seat("this challenger has no game here")),
        }
    }

    pub(super) fn undecided(&self) -> Result<(), DisputeError> {
        if self.seats.convicted.is_some() {
            Err(DisputeError::Decided)
        } else {
            Ok(())
        }
    }

    /// Convicts the claim: ends every game.
    pub(super) fn convict(&mut self, ground: Ground) -> Verdict {
        let ground = *self.seats.convicted.get_or_insert(ground);
        self.seats.open.clear();
        Verdict::Guilty(ground)
    }

    /// Ends one challenger's game; what only it waits for is no longer owed.
    pub(super) fn clear(&mut self, who: Address, ground: Ground) -> Verdict {
        self.seats.players.insert(who, Some(ground));
        self.seats.open.retain(|_, open| {
            open.waiting.remove(&who);
            !open.waiting.is_empty()
        });
        Verdict::Cleared(ground)
    }

    /// Refuses an ask beyond [`ASKS_MAX`].
    pub(super) fn may_ask(&self, who: Address) -> Result<(), DisputeError> {
        if self.seats.asks.get(&who).copied().unwrap_or(0) < ASKS_MAX {
            Ok(())
        } else {
            Err(DisputeError::TooManyAsks { most: ASKS_MAX })
        }
    }

    /// A challenger waits for an ask; several may for the same.
    pub(super) fn wait(&mut self, who: Address, id: Hash, ask: Ask) {
        *self.seats.asks.entry(who).or_default() += 1;
        let open = self.seats.open.entry(id).or_insert_with(|| OpenAsk {
            ask,
            waiting: BTreeSet::new(),
        });
        open.waiting.insert(who);
    }
}
