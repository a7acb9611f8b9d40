//! Whole games before a judge, in memory, with every move counted: one challenger, or several at once in any
//! interleaving.

use alloy_primitives::Address;
use bitai_kernels::Hash;

use super::{Accusation, Answer, Ask, DisputeError, Ground, Judge, Player, Regenerate, Verdict};

/// Who moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one who doubts.
    Challenger,
    /// The neuron.
    Defendant,
}

/// A challenger's move; `to` is the id of the answer (or claim) that it relies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// Asks for a node.
    Ask {
        /// What it builds on.
        to: Hash,
        /// The node.
        ask: Ask,
    },
    /// Accuses a step.
    Accuse {
        /// What it rests on.
        to: Hash,
        /// The step.
        accusation: Box<Accusation>,
    },
    /// Finds nothing wrong, or has nothing to say.
    Resign,
}

/// A challenger: sees what the judge has published.
pub trait Challenge {
    /// Its next move.
    fn next(&mut self, judge: &Judge) -> Move;

    /// [`Challenge::next`], naming a failure of what its own rows come from: the same question may have a move later.
    fn try_next(&mut self, judge: &Judge) -> Result<Move, DisputeError> {
        Ok(self.next(judge))
    }
}

/// A defendant.
pub trait Defend {
    /// Its answer, or why it has none; without one the clock runs out. After [`DisputeError::Device`] the same question
    /// may have an answer later, after another error it has none.
    fn answer(&mut self, ask: &Ask) -> Result<Answer, DisputeError>;
}

impl<R: Regenerate> Defend for Player<R> {
    fn answer(&mut self, ask: &Ask) -> Result<Answer, DisputeError> {
        self.respond(ask)
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
    /// Asks of this game that were answered.
    pub rounds: u32,
    /// Every move of this game; answers that another game asked for are in that one.
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

/// One challenger's place in [`play_all`].
pub struct Seat<'a> {
    /// Its address.
    pub who: Address,
    /// How it plays.
    pub challenger: &'a mut dyn Challenge,
}

/// What a seat does next.
enum State {
    /// Looks at what is published.
    Looks,
    /// Sends a move that it decided on earlier; others may have moved since.
    Sends(Move),
    /// Waits for an answer.
    Waits(Hash, Ask),
    /// Is done.
    Done(Verdict),
}

/// Plays one challenger until a verdict. A refused move is not tried again: its side's clock runs out.
pub fn play(
    judge: &mut Judge,
    who: Address,
    challenger: &mut dyn Challenge,
    defendant: &mut dyn Defend,
) -> Game {
    let mut seats = [Seat { who, challenger }];
    play_all(judge, &mut seats, defendant, &mut |_| 0).remove(0)
}

/// Plays all challengers until each has a verdict. Of the n seats that can go on, `pick(n)` names the one that
/// does: it looks, sends what it decided, or is answered, so moves are made on views that others have changed.
/// A move that such a race made stale is decided anew; any other refused move lets its side's clock run out.
/// Games come in the order of the seats.
pub fn play_all(
    judge: &mut Judge,
    seats: &mut [Seat<'_>],
    defendant: &mut dyn Defend,
    pick: &mut dyn FnMut(usize) -> usize,
) -> Vec<Game> {
    let mut tables: Vec<Table> = seats.iter().map(|seat| Table::join(judge, seat.who)).collect();
    loop {
        for (seat, table) in seats.iter().zip(&mut tables) {
            table.catch_up(judge, seat.who);
        }
        let live: Vec<usize> = (0..tables.len()).filter(|i| !tables[*i].is_done()).collect();
        let Some(&i) = live.get(pick(live.len()).min(live.len().saturating_sub(1))) else {
            break;
        };
        tables[i].go_on(judge, &mut seats[i], defendant);
    }
    tables.into_iter().map(Table::finish).collect()
}

/// One game under way.
struct Table {
    state: State,
    looks: u32,
    game: Game,
}

impl Table {
    fn join(judge: &mut Judge, who: Address) -> Self {
        let game = |verdict, refused| Game {
            verdict,
            rounds: 0,
            moves: vec![],
            refused,
        };
        let silent = Verdict::Cleared(Ground::Silence);
        let (state, game) = match judge.join(who) {
            Ok(()) => (State::Looks, game(silent, None)),
            Err(e) => {
                let verdict = judge.verdict(who).unwrap_or(silent);
                (State::Done(verdict), game(verdict, Some(e)))
            }
        };
        Self {
            state,
            looks: 0,
            game,
        }
    }

    fn is_done(&self) -> bool {
        matches!(self.state, State::Done(_))
    }

    fn finish(mut self) -> Game {
        if let State::Done(verdict) = self.state {
            self.game.verdict = verdict;
        }
        self.game
    }

    /// Takes in what other games did: a verdict for all, an answer that this one waits for.
    fn catch_up(&mut self, judge: &Judge, who: Address) {
        if self.is_done() {
            return;
        }
        if let Some(verdict) = judge.verdict(who) {
            self.state = State::Done(verdict);
        } else if let State::Waits(id, _) = self.state
            && judge.owed().all(|(owed, _)| owed != id)
        {
            self.state = State::Looks;
        }
    }

    fn record(&mut self, side: Side, what: String, bytes: usize) {
        self.game.moves.push(MoveRecord { side, what, bytes });
    }

    /// A clock runs out.
    fn run_out(&mut self, judge: &mut Judge, who: Address, refused: Option<DisputeError>) {
        self.game.refused = refused;
        let verdict = judge.timeout(who).ok().or_else(|| judge.verdict(who));
        self.state = State::Done(verdict.unwrap_or(Verdict::Cleared(Ground::Silence)));
    }

    fn go_on(&mut self, judge: &mut Judge, seat: &mut Seat<'_>, defendant: &mut dyn Defend) {
        match std::mem::replace(&mut self.state, State::Looks) {
            State::Looks => {
                self.looks += 1;
                match seat.challenger.next(judge) {
                    Move::Resign => self.run_out(judge, seat.who, None),
                    _ if self.looks > MOVES_MAX => self.run_out(judge, seat.who, None),
                    next => self.state = State::Sends(next),
                }
            }
            State::Sends(Move::Ask { to, ask }) => {
                self.record(Side::Challenger, format!("ask {ask:?}"), ask.size());
                match judge.ask(seat.who, to, ask) {
                    Ok(id) => self.state = State::Waits(id, ask),
                    Err(DisputeError::Published) => {}
                    Err(e) => self.run_out(judge, seat.who, Some(e)),
                }
            }
            State::Sends(Move::Accuse { to, accusation }) => {
                let what = format!("accuse {}", accusation.name());
                self.record(Side::Challenger, what, accusation.size());
                match judge.accuse(seat.who, to, &accusation) {
                    Ok(verdict) => self.state = State::Done(verdict),
                    Err(e) => self.run_out(judge, seat.who, Some(e)),
                }
            }
            State::Waits(id, ask) => match defendant.answer(&ask) {
                Err(_) => {
                    self.state = State::Waits(id, ask);
                    self.run_out(judge, seat.who, None);
                }
                Ok(answer) => {
                    self.game.rounds += 1;
                    self.record(Side::Defendant, "answer".into(), answer.size());
                    if let Err(e) = judge.answer(judge.neuron(), id, answer) {
                        self.run_out(judge, seat.who, Some(e));
                    }
                }
            },
            State::Sends(Move::Resign) => self.run_out(judge, seat.who, None),
            done @ State::Done(_) => self.state = done,
        }
    }
}
