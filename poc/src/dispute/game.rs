//! A whole game between two players before a judge, in memory, with every move counted.

use super::{Accusation, Answer, Ask, DisputeError, Ground, Judge, Player, Regenerate, Verdict};

/// Who moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one who doubts.
    Challenger,
    /// The neuron.
    Defendant,
}

/// A challenger's move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// Asks for a node.
    Ask(Ask),
    /// Accuses a step.
    Accuse(Box<Accusation>),
    /// Finds nothing wrong, or has nothing to say.
    Resign,
}

/// A challenger: sees what the judge has published.
pub trait Challenge {
    /// Its next move.
    fn next(&mut self, judge: &Judge) -> Move;
}

/// A defendant.
pub trait Defend {
    /// Its answer; none lets the clock run out.
    fn answer(&mut self, ask: &Ask) -> Option<Answer>;
}

impl<R: Regenerate> Defend for Player<R> {
    fn answer(&mut self, ask: &Ask) -> Option<Answer> {
        self.respond(ask).ok()
    }
}

/// One move of a game.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveRecord {
    /// Who moved.
    pub side: Side,
    /// What.
    pub what: String,
    /// Bytes on the wire.
    pub bytes: usize,
}

/// A finished game.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Game {
    /// How it ended.
    pub verdict: Verdict,
    /// Asks that were answered.
    pub rounds: u32,
    /// Every move.
    pub moves: Vec<MoveRecord>,
    /// Why a move was refused, if that ended it.
    pub refused: Option<DisputeError>,
}

impl Game {
    /// The largest single move in bytes.
    pub fn bytes_max(&self) -> usize {
        self.moves.iter().map(|m| m.bytes).max().unwrap_or(0)
    }
}

/// Moves after which a challenger that does not end its game counts as silent.
const MOVES_MAX: u32 = 1000;

/// Plays until a verdict. A refused move is not tried again: its side's clock runs out.
pub fn play(judge: &mut Judge, challenger: &mut dyn Challenge, defendant: &mut dyn Defend) -> Game {
    let (mut moves, mut rounds) = (vec![], 0);
    let end = |verdict, moves, rounds, refused| Game {
        verdict,
        rounds,
        moves,
        refused,
    };
    for _ in 0..MOVES_MAX {
        let next = challenger.next(judge);
        let mut record = |side, what: String, bytes| moves.push(MoveRecord { side, what, bytes });
        match next {
            Move::Resign => break,
            Move::Accuse(accusation) => {
                record(
                    Side::Challenger,
                    format!("accuse {}", name(&accusation)),
                    accusation.size(),
                );
                return match judge.accuse(&accusation) {
                    Ok(verdict) => end(verdict, moves, rounds, None),
                    Err(e) => end(Verdict::Cleared(Ground::Silence), moves, rounds, Some(e)),
                };
            }
            Move::Ask(ask) => {
                record(Side::Challenger, format!("ask {ask:?}"), ask.size());
                let id = match judge.ask(ask) {
                    Ok(id) => id,
                    Err(e) => return end(judge.timeout(), moves, rounds, Some(e)),
                };
                let Some(answer) = defendant.answer(&ask) else {
                    return end(judge.timeout(), moves, rounds, None);
                };
                rounds += 1;
                record(Side::Defendant, "answer".into(), answer.size());
                match judge.answer(id, answer) {
                    Ok(None) => {}
                    Ok(Some(verdict)) => return end(verdict, moves, rounds, None),
                    Err(e) => return end(judge.timeout(), moves, rounds, Some(e)),
                }
            }
        }
    }
    end(judge.timeout(), moves, rounds, None)
}

/// An accusation's kind.
fn name(accusation: &Accusation) -> String {
    let text = format!("{accusation:?}");
    text.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
}
