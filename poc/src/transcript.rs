//! A run's transcript: collects body roots and what was put out (sampled tokens, or an encoder's words) as the engine
//! yields them, keeps 32 bytes a token (or a layer) so that the neuron can answer later, and gives the trace root at
//! the end.

use alloy_primitives::B256;
use bitai_kernels::{Hash, Trace, rows::merkle_root};
use thiserror::Error;

use crate::header::{FLAG_BY_LAYER, FLAG_OUT_ROWS, Header, TraceRoot, layer_node, token_node, words_node};

/// First bytes of an encoded transcript.
pub const TRANSCRIPT_MAGIC: &[u8; 16] = b"bitai/trscrpt/v0";
/// Most positions (layers, words) that a transcript may hold; bounds what a decoder allocates (32 bytes each).
pub const POSITIONS_MAX: u32 = 1 << 20;

/// Bytes before the lists: magic, job, seven words.
const PREFIX_LEN: usize = 16 + 32 + 7 * 4;
/// Bytes after them: BLAKE3 of all before.
const CHECK_LEN: usize = 32;

/// What an engine reported out of order, or what is still missing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TranscriptError {
    /// Body roots that leave a gap or come twice.
    #[error("body roots arrived for number {got}; {expected} is next (a position, an encoder's layer)")]
    BodyOrder {
        /// Next position, or layer.
        expected: u32,
        /// First of what came.
        got: u32,
    },
    /// A sampled token that leaves a gap, comes twice or lies inside the prompt.
    #[error("a token was sampled at position {got}; position {expected} is next")]
    SampleOrder {
        /// Next position that samples.
        expected: u32,
        /// Position of what came.
        got: u32,
    },
    /// A sampled id that is no token.
    #[error("sampled id {token} is not below the vocabulary of {vocab}")]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// The vocabulary.
        vocab: u32,
    },
    /// More positions than a transcript may hold.
    #[error("more than {POSITIONS_MAX} positions or words")]
    TooLong,
    /// More layers than the encoder has.
    #[error("body roots for more than the {layers} layers of the program")]
    TooManyLayers {
        /// The program's.
        layers: u32,
    },
    /// Sampled tokens in an encoder's trace, or words in a decoder's.
    #[error("{what} in the trace of a program that puts out none")]
    OtherKind {
        /// What came.
        what: &'static str,
    },
    /// Words that came twice.
    #[error("words came after the output was complete")]
    WordsAgain,
    /// A header without a prompt.
    #[error("the header names a prompt of 0 ids; at least 1 is needed")]
    NoPrompt,
    /// Nothing was put out.
    #[error("no token was sampled and no word put out; a trace needs at least one")]
    NoOutput,
    /// Body roots and outputs do not belong together.
    #[error(
        "{bodies} body roots for {prompt} prompt ids and {outputs} outputs; {expected} are needed (call hash and take_bodies to the end)"
    )]
    Unfinished {
        /// Body roots held.
        bodies: u32,
        /// Prompt ids.
        prompt: u32,
        /// Tokens sampled, or words put out.
        outputs: u32,
        /// Body roots needed.
        expected: u32,
    },
}

/// Why bytes are no transcript.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Another length than the counts inside need.
    #[error("{got} bytes; this transcript needs {expected}")]
    Length {
        /// Bytes needed.
        expected: usize,
        /// Bytes found.
        got: usize,
    },
    /// Not a transcript of this version.
    #[error("does not start with the transcript's magic")]
    Magic,
    /// The checksum does not match.
    #[error("checksum mismatch: the transcript was damaged")]
    Checksum,
    /// Unknown flag bits.
    #[error("unknown flags {0:#x}")]
    Flags(u32),
    /// Contents that no run can have made.
    #[error(transparent)]
    Content(#[from] TranscriptError),
}

/// The commitments of one sequence, prompt and output, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    header: Header,
    bodies: Vec<Hash>,
    outputs: Vec<u32>,
    fault: Option<TranscriptError>,
}

impl Transcript {
    /// An empty transcript bound to `header`.
    pub fn new(header: Header) -> Self {
        Self {
            fault: (header.prompt == 0).then_some(TranscriptError::NoPrompt),
            header,
            bodies: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// What it is bound to.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Body roots so far, position 0 (of an encoder layer 0) first.
    pub fn body_roots(&self) -> &[Hash] {
        &self.bodies
    }

    /// Sampled tokens so far, or an encoder's words: the job's output.
    pub fn outputs(&self) -> &[u32] {
        &self.outputs
    }

    /// The token sampled at position `pos`, if that position sampled one.
    pub fn sampled_at(&self, pos: u32) -> Option<u32> {
        let i = self.header.output_at(pos)?;
        self.outputs.get(i as usize).copied()
    }

    /// What the trace's tree is built over: the token nodes, position 0 first; of an encoder the layers' nodes and then
    /// the words'.
    pub fn nodes(&self) -> Vec<Hash> {
        let bodies = (0u32..).zip(&self.bodies);
        if self.header.by_layer {
            bodies
                .map(|(layer, body)| layer_node(layer, body))
                .chain([words_node(&self.outputs)])
                .collect()
        } else {
            bodies
                .map(|(pos, body)| token_node(pos, body, self.sampled_at(pos)))
                .collect()
        }
    }

    /// Whether everything that was put out has its body roots and nothing came out of order.
    pub fn check(&self) -> Result<(), TranscriptError> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let outputs = len32(&self.outputs);
        if outputs == 0 {
            return Err(TranscriptError::NoOutput);
        }
        let (bodies, expected) = (len32(&self.bodies), self.header.bodies(outputs));
        if bodies != expected {
            return Err(TranscriptError::Unfinished {
                bodies,
                prompt: self.header.prompt,
                outputs,
                expected,
            });
        }
        Ok(())
    }

    /// The trace root of a finished run; the first fault, or what is missing, otherwise.
    pub fn root(&self) -> Result<TraceRoot, TranscriptError> {
        self.check()?;
        let outputs = len32(&self.outputs);
        Ok(TraceRoot::new(
            &self.header.hash(outputs),
            self.header.leaves(outputs),
            &merkle_root(&self.nodes()),
        ))
    }

    /// Canonical bytes, for a journal. Any run that met no fault can be written, finished or not.
    pub fn encode(&self) -> Result<Vec<u8>, TranscriptError> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let (bodies, outputs) = (len32(&self.bodies), len32(&self.outputs));
        let mut bytes = Vec::with_capacity(encoded_len(bodies, outputs));
        bytes.extend_from_slice(TRANSCRIPT_MAGIC);
        bytes.extend_from_slice(self.header.job.as_slice());
        let h = &self.header;
        for word in [h.layers, h.stride, h.vocab, h.prompt, h.flags(), bodies, outputs] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend(self.bodies.iter().flatten());
        bytes.extend(self.outputs.iter().flat_map(|t| t.to_le_bytes()));
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(check.as_bytes());
        Ok(bytes)
    }

    /// The reverse of [`Transcript::encode`]; refuses every other byte string.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let short = DecodeError::Length {
            expected: PREFIX_LEN + CHECK_LEN,
            got: bytes.len(),
        };
        let Some((magic, rest)) = bytes.split_first_chunk::<16>() else {
            return Err(short);
        };
        if magic != TRANSCRIPT_MAGIC {
            return Err(DecodeError::Magic);
        }
        let Some((job, rest)) = rest.split_first_chunk::<32>() else {
            return Err(short);
        };
        let Some((words, rest)) = rest.split_first_chunk::<28>() else {
            return Err(short);
        };
        let (words, _) = words.as_chunks::<4>();
        let word = |i: usize| u32::from_le_bytes(words[i]);
        let (flags, bodies, outputs) = (word(4), word(5), word(6));
        if bodies > POSITIONS_MAX || outputs > POSITIONS_MAX {
            return Err(TranscriptError::TooLong.into());
        }
        let expected = encoded_len(bodies, outputs);
        if bytes.len() != expected {
            return Err(DecodeError::Length {
                expected,
                got: bytes.len(),
            });
        }
        let (body, check) = bytes.split_at(expected - CHECK_LEN);
        if blake3::hash(body).as_bytes() != check {
            return Err(DecodeError::Checksum);
        }
        if flags & !(FLAG_OUT_ROWS | FLAG_BY_LAYER) != 0 {
            return Err(DecodeError::Flags(flags));
        }
        let mut transcript = Self::new(Header {
            job: B256::from(*job),
            layers: word(0),
            stride: word(1),
            vocab: word(2),
            prompt: word(3),
            out_rows: flags & FLAG_OUT_ROWS != 0,
            by_layer: flags & FLAG_BY_LAYER != 0,
        });
        let (hashes, tokens) = rest[..rest.len() - CHECK_LEN].split_at(bodies as usize * 32);
        let (hashes, _) = hashes.as_chunks::<32>();
        transcript.bodies(0, hashes);
        let outputs = tokens.as_chunks::<4>().0.iter().map(|w| u32::from_le_bytes(*w));
        if transcript.header.by_layer {
            transcript.words(&outputs.collect::<Vec<u32>>());
        } else {
            for (token, i) in outputs.zip(0u32..) {
                let pos = (transcript.header.prompt.saturating_sub(1)).saturating_add(i);
                transcript.sampled(pos, token);
            }
        }
        match transcript.fault {
            Some(fault) => Err(fault.into()),
            None => Ok(transcript),
        }
    }

    /// Keeps the first fault: what follows it is noise.
    fn fail(&mut self, fault: TranscriptError) {
        self.fault.get_or_insert(fault);
    }
}

impl Trace for Transcript {
    fn bodies(&mut self, first: u32, bodies: &[Hash]) {
        let expected = len32(&self.bodies);
        if bodies.is_empty() {
            return;
        }
        if first != expected {
            return self.fail(TranscriptError::BodyOrder { expected, got: first });
        }
        if bodies.len() > (POSITIONS_MAX - expected) as usize {
            return self.fail(TranscriptError::TooLong);
        }
        let layers = self.header.layers;
        if self.header.by_layer && bodies.len() > layers.saturating_sub(expected) as usize {
            return self.fail(TranscriptError::TooManyLayers { layers });
        }
        self.bodies.extend_from_slice(bodies);
    }

    fn sampled(&mut self, pos: u32, token: u32) {
        if self.header.by_layer {
            return self.fail(TranscriptError::OtherKind {
                what: "a sampled token",
            });
        }
        let expected = u64::from(self.header.prompt) + self.outputs.len() as u64;
        let expected = u32::try_from(expected - u64::from(expected > 0)).unwrap_or(u32::MAX);
        if pos != expected {
            return self.fail(TranscriptError::SampleOrder { expected, got: pos });
        }
        if token >= self.header.vocab {
            let vocab = self.header.vocab;
            return self.fail(TranscriptError::TokenOutOfRange { token, vocab });
        }
        if pos >= POSITIONS_MAX {
            return self.fail(TranscriptError::TooLong);
        }
        self.outputs.push(token);
    }

    fn words(&mut self, words: &[u32]) {
        if words.is_empty() {
            return;
        }
        if !self.header.by_layer {
            return self.fail(TranscriptError::OtherKind { what: "words" });
        }
        if !self.outputs.is_empty() {
            return self.fail(TranscriptError::WordsAgain);
        }
        if words.len() > POSITIONS_MAX as usize {
            return self.fail(TranscriptError::TooLong);
        }
        self.outputs.extend_from_slice(words);
    }
}

/// Length of a list that [`POSITIONS_MAX`] bounds.
fn len32<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).expect("lists are kept below POSITIONS_MAX")
}

/// Bytes of an encoded transcript.
fn encoded_len(bodies: u32, outputs: u32) -> usize {
    PREFIX_LEN + bodies as usize * 32 + outputs as usize * 4 + CHECK_LEN
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(prompt: u32) -> Header {
        Header {
            job: B256::repeat_byte(9),
            layers: 4,
            stride: 2,
            vocab: 100,
            prompt,
            out_rows: true,
            by_layer: false,
        }
    }

    fn body(i: u32) -> Hash {
        *blake3::hash(&i.to_le_bytes()).as_bytes()
    }

    fn run(prompt: u32, outputs: &[u32]) -> Transcript {
        let mut t = Transcript::new(header(prompt));
        let n = t.header.positions(len32(outputs));
        t.bodies(0, &(0..n).map(body).collect::<Vec<_>>());
        for (i, token) in (0u32..).zip(outputs) {
            t.sampled(prompt - 1 + i, *token);
        }
        t
    }

    #[test]
    fn pieces_and_interleaving_do_not_matter() {
        let whole = run(3, &[5, 6, 7]);
        let mut parts = Transcript::new(header(3));
        parts.sampled(2, 5);
        parts.bodies(0, &[body(0), body(1)]);
        parts.bodies(2, &[]);
        parts.sampled(3, 6);
        parts.bodies(2, &[body(2), body(3), body(4)]);
        parts.sampled(4, 7);
        assert_eq!(parts, whole);
        assert_eq!(parts.root().unwrap(), whole.root().unwrap());
    }

    #[test]
    fn every_part_changes_the_root() {
        let base = run(3, &[5, 6, 7]);
        let root = base.root().unwrap();
        for i in 0..base.bodies.len() {
            let mut t = base.clone();
            t.bodies[i][31] ^= 1;
            assert_ne!(t.root().unwrap(), root, "body {i}");
        }
        for i in 0..3 {
            let mut t = base.clone();
            t.outputs[i] ^= 1;
            assert_ne!(t.root().unwrap(), root, "output {i}");
        }
        let mut other_job = base.clone();
        other_job.header.job = B256::repeat_byte(8);
        assert_ne!(other_job.root().unwrap(), root);
        // As many positions, but one id less in the prompt and one more in the output.
        assert_ne!(run(2, &[5, 6, 7, 8]).root().unwrap(), root);
    }

    #[test]
    fn rejects_gaps_overlaps_and_tokens_inside_the_prompt() {
        let mut t = Transcript::new(header(3));
        t.bodies(1, &[body(1)]);
        assert_eq!(t.root(), Err(TranscriptError::BodyOrder { expected: 0, got: 1 }));
        let mut t = run(3, &[5]);
        t.bodies(2, &[body(2)]);
        assert_eq!(t.root(), Err(TranscriptError::BodyOrder { expected: 3, got: 2 }));
        let mut t = Transcript::new(header(3));
        t.sampled(1, 5);
        assert_eq!(
            t.root(),
            Err(TranscriptError::SampleOrder { expected: 2, got: 1 })
        );
        let mut t = run(3, &[5]);
        t.sampled(2, 5);
        assert_eq!(
            t.root(),
            Err(TranscriptError::SampleOrder { expected: 3, got: 2 })
        );
        let mut t = Transcript::new(header(3));
        t.sampled(2, 100);
        assert_eq!(
            t.root(),
            Err(TranscriptError::TokenOutOfRange {
                token: 100,
                vocab: 100
            })
        );
        assert!(t.encode().is_err());
    }

    #[test]
    fn rejects_a_run_that_is_not_finished() {
        let mut t = Transcript::new(header(3));
        assert_eq!(t.root(), Err(TranscriptError::NoOutput));
        t.sampled(2, 1);
        t.bodies(0, &[body(0), body(1)]);
        assert!(matches!(
            t.root(),
            Err(TranscriptError::Unfinished {
                bodies: 2,
                expected: 3,
                ..
            })
        ));
        assert_eq!(Transcript::new(header(0)).root(), Err(TranscriptError::NoPrompt));
    }

    #[test]
    fn rejects_every_damaged_or_cut_encoding() {
        let bytes = run(2, &[1, 2]).encode().unwrap();
        for i in 0..bytes.len() {
            assert!(Transcript::decode(&bytes[..i]).is_err(), "cut at {i}");
            let mut bad = bytes.clone();
            bad[i] ^= 1;
            assert!(Transcript::decode(&bad).is_err(), "flipped byte {i}");
        }
        let mut long = bytes;
        long.push(0);
        assert!(matches!(
            Transcript::decode(&long),
            Err(DecodeError::Length { .. })
        ));
    }

    #[test]
    fn rejects_a_well_summed_encoding_with_unknown_flags_or_huge_counts() {
        let bytes = run(2, &[1, 2]).encode().unwrap();
        let resum = |at: usize, word: u32| {
            let mut b = bytes.clone();
            b[at..at + 4].copy_from_slice(&word.to_le_bytes());
            let end = b.len() - CHECK_LEN;
            let check = *blake3::hash(&b[..end]).as_bytes();
            b[end..].copy_from_slice(&check);
            Transcript::decode(&b)
        };
        assert_eq!(resum(48 + 16, 5), Err(DecodeError::Flags(5)));
        // Flag 2 makes another kind of it: three of four layers and two words, unfinished.
        let other = resum(48 + 16, 3).unwrap();
        assert!(matches!(
            other.root(),
            Err(TranscriptError::Unfinished {
                bodies: 3,
                expected: 4,
                ..
            })
        ));
        assert_eq!(
            resum(48 + 20, u32::MAX),
            Err(DecodeError::Content(TranscriptError::TooLong))
        );
        assert_eq!(
            resum(48 + 12, 0),
            Err(DecodeError::Content(TranscriptError::NoPrompt))
        );
    }

    proptest! {
        #[test]
        fn encodings_read_back(prompt in 1u32..40, outs in prop::collection::vec(0u32..100, 0..20), cut in 0usize..40) {
            let mut t = Transcript::new(header(prompt));
            let n = t.header.positions(len32(&outs)).min(u32::try_from(cut).unwrap());
            t.bodies(0, &(0..n).map(body).collect::<Vec<_>>());
            for (i, token) in (0u32..).zip(&outs) { t.sampled(prompt - 1 + i, *token); }
            let bytes = t.encode().unwrap();
            prop_assert_eq!(Transcript::decode(&bytes).unwrap(), t);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), magic in any::<bool>()) {
            let mut bytes = bytes;
            if magic && bytes.len() >= 16 { bytes[..16].copy_from_slice(TRANSCRIPT_MAGIC); }
            if let Ok(t) = Transcript::decode(&bytes) {
                prop_assert_eq!(t.encode().unwrap(), bytes);
            }
        }
    }
}
