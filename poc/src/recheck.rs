//! Verification by re-check: whoever doubts a claim runs prompt and output again as one batched prefill and
//! compares. Equal roots say everything; where they differ, this names the first token, and the first layer
//! when the other side's rows are known; of an encoder the first layer, and then the token.

use std::fmt;

use bitai_kernels::{Hash, Program, program::SiteId};

use crate::{
    dispute::{DisputeError, Regenerate, TokenRows},
    header::TraceRoot,
    opening::LayerRows,
    transcript::{Transcript, TranscriptError},
};

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The claim is what I computed.
    Same,
    /// The roots differ; nothing more is known about the claim.
    RootMismatch {
        /// What was claimed.
        claimed: TraceRoot,
        /// What I computed.
        mine: TraceRoot,
    },
    /// The transcript that was supplied is not the one behind the claimed root.
    NotTheirs {
        /// What was claimed.
        claimed: TraceRoot,
        /// The root of what was supplied, if it has one.
        supplied: Option<TraceRoot>,
    },
    /// The claim is bound to another job, model shape or length.
    OtherJob,
    /// The traces part here.
    Differs(Divergence),
}

/// The first place where two traces part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Divergence {
    /// A decoder's token.
    Token {
        /// Position in prompt and output.
        pos: u32,
        /// What differs there.
        what: Part,
    },
    /// An encoder's layer.
    Layer {
        /// The first layer in which some token's rows differ.
        layer: u32,
        /// The first such token and its row; none where only the layers' roots are known.
        row: Option<(u32, Row)>,
    },
    /// A word of an encoder's output, all layers being equal.
    Word {
        /// Which word.
        index: u32,
        /// The claimed one.
        theirs: i32,
        /// The right one.
        mine: i32,
    },
}

/// A committed row of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// Keys and values.
    Kv,
    /// The residual behind the layer, the KV rows of all tokens being equal.
    Out,
}

/// What of a token differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Some layer's rows; which one is not known without them.
    Body,
    /// This layer's KV row (the first that differs).
    Kv(u32),
    /// This layer's `out` row, its KV row and all earlier ones being equal.
    Out(u32),
    /// Only the sampled token.
    Sampled {
        /// The claimed token.
        theirs: u32,
        /// The right one.
        mine: u32,
    },
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Token { pos, what } => match what {
                Part::Body => write!(f, "token {pos}: a layer's rows differ"),
                Part::Kv(layer) => write!(f, "token {pos}, layer {layer}: the KV row differs"),
                Part::Out(layer) => write!(f, "token {pos}, layer {layer}: the out row differs"),
                Part::Sampled { theirs, mine } => {
                    write!(f, "token {pos}: sampled {theirs}, should be {mine}")
                }
            },
            Self::Layer { layer, row: None } => write!(f, "layer {layer}: a token's rows differ"),
            Self::Layer {
                layer,
                row: Some((pos, Row::Kv)),
            } => write!(f, "layer {layer}, token {pos}: the KV row differs"),
            Self::Layer {
                layer,
                row: Some((pos, Row::Out)),
            } => write!(f, "layer {layer}, token {pos}: the out row differs"),
            Self::Word { index, theirs, mine } => write!(f, "word {index}: {theirs}, should be {mine}"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Same => write!(f, "same trace root"),
            Verdict::RootMismatch { claimed, mine } => {
                write!(f, "trace root mismatch: claimed {claimed}, computed {mine}")
            }
            Verdict::NotTheirs {
                claimed,
                supplied: Some(root),
            } => {
                write!(
                    f,
                    "the supplied transcript has root {root}, not the claimed {claimed}"
                )
            }
            Verdict::NotTheirs {
                claimed,
                supplied: None,
            } => {
                write!(
                    f,
                    "the supplied transcript is unfinished; it is not behind the claimed {claimed}"
                )
            }
            Verdict::OtherJob => write!(f, "the claim is bound to another job, model or length"),
            Verdict::Differs(d) => write!(f, "{d}"),
        }
    }
}

/// Compares a claimed root with my finished transcript; `theirs`, where it is known, lets it name the token.
pub fn compare(
    claimed: TraceRoot,
    mine: &Transcript,
    theirs: Option<&Transcript>,
) -> Result<Verdict, TranscriptError> {
    let my_root = mine.root()?;
    if my_root == claimed {
        return Ok(Verdict::Same);
    }
    let Some(theirs) = theirs else {
        return Ok(Verdict::RootMismatch {
            claimed,
            mine: my_root,
        });
    };
    let supplied = theirs.root().ok();
    if supplied != Some(claimed) {
        return Ok(Verdict::NotTheirs { claimed, supplied });
    }
    if theirs.header() != mine.header() || theirs.outputs().len() != mine.outputs().len() {
        return Ok(Verdict::OtherJob);
    }
    Ok(match first_difference(mine, theirs) {
        Some(d) => Verdict::Differs(d),
        // Equal contents would have had equal roots.
        None => Verdict::RootMismatch {
            claimed,
            mine: my_root,
        },
    })
}

/// The first place at which two transcripts of one job differ, as far as both reach: a token, or of an encoder a layer
/// and else a word.
pub fn first_difference(mine: &Transcript, theirs: &Transcript) -> Option<Divergence> {
    let mut bodies = (0u32..).zip(mine.body_roots().iter().zip(theirs.body_roots()));
    if mine.header().by_layer {
        return bodies
            .find(|(_, (a, b))| a != b)
            .map(|(layer, _)| Divergence::Layer { layer, row: None })
            .or_else(|| first_word(mine.outputs(), theirs.outputs()));
    }
    bodies.find_map(|(pos, (a, b))| {
        if a != b {
            return Some(Divergence::Token {
                pos,
                what: Part::Body,
            });
        }
        match (mine.sampled_at(pos), theirs.sampled_at(pos)) {
            (Some(mine), Some(theirs)) if mine != theirs => Some(Divergence::Token {
                pos,
                what: Part::Sampled { theirs, mine },
            }),
            _ => None,
        }
    })
}

/// The first word at which two outputs of an encoder differ, as far as both reach.
pub fn first_word(mine: &[u32], theirs: &[u32]) -> Option<Divergence> {
    (0u32..)
        .zip(mine.iter().zip(theirs))
        .find(|(_, (a, b))| a != b)
        .map(|(index, (mine, theirs))| Divergence::Word {
            index,
            theirs: theirs.cast_signed(),
            mine: mine.cast_signed(),
        })
}

/// The first token at which two encoders' rows of one layer differ. Keys and values of all tokens come before the
/// residuals behind them: attention carries one wrong key into every token's residual.
pub fn first_token(layer: u32, mine: &[LayerRows], theirs: &[LayerRows]) -> Option<Divergence> {
    let first = |differ: &dyn Fn(&LayerRows, &LayerRows) -> bool| {
        (0u32..)
            .zip(mine.iter().zip(theirs))
            .find(|(_, (a, b))| differ(a, b))
            .map(|(pos, _)| pos)
    };
    let kv = first(&|a, b| a.kv != b.kv).map(|pos| (pos, Row::Kv));
    let row = kv.or_else(|| first(&|a, b| a.out != b.out).map(|pos| (pos, Row::Out)))?;
    Some(Divergence::Layer {
        layer,
        row: Some(row),
    })
}

/// The first layer at which two tokens' rows differ; `None` when they are equal or not of one shape.
pub fn first_layer(pos: u32, mine: &[LayerRows], theirs: &[LayerRows]) -> Option<Divergence> {
    (0u32..).zip(mine.iter().zip(theirs)).find_map(|(l, (a, b))| {
        let what = if a.kv != b.kv {
            Part::Kv(l)
        } else if a.out != b.out {
            Part::Out(l)
        } else {
            return None;
        };
        Some(Divergence::Token { pos, what })
    })
}

/// [`first_layer`] where their rows are checked to be those behind their body root; `None` if they are not.
pub fn first_layer_checked(
    pos: u32,
    mine: &[LayerRows],
    theirs: &[LayerRows],
    their_body: &Hash,
) -> Option<Divergence> {
    if theirs.len() != mine.len() || LayerRows::body(pos, theirs) != *their_body {
        return None;
    }
    first_layer(pos, mine, theirs)
}

/// The first token and layer (of an encoder: layer and token) at which two runs of one job differ, each side
/// regenerating its own rows there. `None` where the transcripts agree.
pub fn locate(
    (mine, my_rows): (&Transcript, &mut dyn Regenerate),
    (theirs, their_rows): (&Transcript, &mut dyn Regenerate),
    program: &Program,
) -> Result<Option<Divergence>, DisputeError> {
    let Some(first) = first_difference(mine, theirs) else {
        return Ok(None);
    };
    let closer = match first {
        Divergence::Token {
            pos,
            what: Part::Body,
        } => {
            let header = mine.header();
            let mine = my_rows.token(pos)?.layers(program, header);
            let theirs = their_rows.token(pos)?.layers(program, header);
            mine.zip(theirs)
                .and_then(|(mine, theirs)| first_layer(pos, &mine, &theirs))
        }
        Divergence::Layer { layer, .. } => {
            first_token(layer, &my_rows.layer(layer)?, &their_rows.layer(layer)?)
        }
        Divergence::Token { .. } | Divergence::Word { .. } => None,
    };
    Ok(Some(closer.unwrap_or(first)))
}

/// The token whose rows hold the first wrong integer, each side regenerating what it takes to tell. Where all layers of
/// an encoder are equal and its words are not, a row behind the last committed one may be wrong at any token; all that
/// the words read of a token is the row that is pooled, and what reads those stands at the last position. `None` where
/// a layer's rows are equal when they are regenerated.
pub fn token_of(
    parted: Divergence,
    my_rows: &mut dyn Regenerate,
    their_rows: &mut dyn Regenerate,
) -> Result<Option<u32>, DisputeError> {
    Ok(match parted {
        Divergence::Token { pos, .. } => Some(pos),
        Divergence::Layer {
            row: Some((pos, _)), ..
        } => Some(pos),
        Divergence::Layer { layer, row: None } => {
            match first_token(layer, &my_rows.layer(layer)?, &their_rows.layer(layer)?) {
                Some(Divergence::Layer {
                    row: Some((pos, _)), ..
                }) => Some(pos),
                _ => None,
            }
        }
        Divergence::Word { .. } => {
            let (mine, theirs) = (my_rows.pooled()?, their_rows.pooled()?);
            let mut rows = (0u32..).zip(mine.iter().zip(&theirs));
            let differs = rows.find(|(_, (a, b))| a != b).map(|(pos, _)| pos);
            let last = u32::try_from(mine.len().saturating_sub(1)).unwrap_or(u32::MAX);
            Some(differs.unwrap_or(last))
        }
    })
}

/// The site that made a token's first wrong integer: the first in program order whose rows differ. At the first
/// token that differs all its inputs agree, cached rows of earlier tokens included.
pub fn first_site(mine: &TokenRows, theirs: &TokenRows) -> Option<SiteId> {
    (0u32..)
        .zip(mine.0.iter().zip(&theirs.0))
        .find(|(_, (a, b))| a != b)
        .map(|(site, _)| site)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Header;
    use alloy_primitives::B256;
    use bitai_kernels::Trace;

    fn rows(pos: u32, wrong: Option<(u32, u32)>) -> Vec<LayerRows> {
        (0..4u32)
            .map(|l| LayerRows {
                kv: [u8::from(wrong == Some((pos, l))); 32],
                out: (l % 2 == 1).then_some([u8::try_from(pos).unwrap(); 32]),
            })
            .collect()
    }

    fn run(wrong: Option<(u32, u32)>, outputs: &[u32]) -> Transcript {
        let header = Header {
            job: B256::ZERO,
            layers: 4,
            stride: 2,
            vocab: 10,
            prompt: 2,
            out_rows: true,
            by_layer: false,
        };
        let mut t = Transcript::new(header);
        for pos in 0..header.positions(u32::try_from(outputs.len()).unwrap()) {
            t.bodies(pos, &[LayerRows::body(pos, &rows(pos, wrong))]);
        }
        for (pos, token) in (1u32..).zip(outputs) {
            t.sampled(pos, *token);
        }
        t
    }

    #[test]
    fn equal_runs_are_the_same_and_a_bare_root_says_no_more() {
        let mine = run(None, &[1, 2, 3]);
        let root = mine.root().unwrap();
        assert_eq!(compare(root, &mine, None), Ok(Verdict::Same));
        let claimed = run(Some((1, 2)), &[1, 2, 3]).root().unwrap();
        assert_eq!(
            compare(claimed, &mine, None),
            Ok(Verdict::RootMismatch { claimed, mine: root })
        );
    }

    #[test]
    fn names_the_first_token_and_layer() {
        let mine = run(None, &[1, 2, 3]);
        let theirs = run(Some((2, 3)), &[1, 2, 3]);
        let claimed = theirs.root().unwrap();
        let verdict = compare(claimed, &mine, Some(&theirs)).unwrap();
        assert_eq!(
            verdict,
            Verdict::Differs(Divergence::Token {
                pos: 2,
                what: Part::Body
            })
        );
        let d =
            first_layer_checked(2, &rows(2, None), &rows(2, Some((2, 3))), &theirs.body_roots()[2]).unwrap();
        assert_eq!(d.to_string(), "token 2, layer 3: the KV row differs");
        assert_eq!(
            first_layer_checked(2, &rows(2, None), &rows(2, Some((2, 1))), &theirs.body_roots()[2]),
            None
        );
    }

    #[test]
    fn names_a_token_that_was_sampled_wrongly() {
        let mine = run(None, &[1, 2, 3]);
        let theirs = run(None, &[1, 4, 3]);
        assert_eq!(
            compare(theirs.root().unwrap(), &mine, Some(&theirs)).unwrap(),
            Verdict::Differs(Divergence::Token {
                pos: 2,
                what: Part::Sampled { theirs: 4, mine: 2 }
            })
        );
    }

    #[test]
    fn rejects_a_transcript_that_is_not_behind_the_claim() {
        let mine = run(None, &[1, 2, 3]);
        let claimed = run(Some((1, 1)), &[1, 2, 3]).root().unwrap();
        let supplied = run(Some((1, 0)), &[1, 2, 3]);
        assert!(matches!(
            compare(claimed, &mine, Some(&supplied)),
            Ok(Verdict::NotTheirs {
                supplied: Some(_),
                ..
            })
        ));
        let shorter = run(None, &[1, 2]);
        assert_eq!(
            compare(shorter.root().unwrap(), &mine, Some(&shorter)),
            Ok(Verdict::OtherJob)
        );
    }
}
