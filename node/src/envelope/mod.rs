//! The envelope: how a batch of BitAI transactions lies in Bitcoin witness data. Consensus code: what it
//! accepts decides what executes. `docs/spec/envelope.md` is the same rules in words.
//!
//! [`script`] finds envelopes in a tapscript, [`payload`] turns their payload into transactions, [`scan`]
//! walks a block. A fault voids the envelope that has it and nothing else; nothing here panics.

mod frame;
pub mod payload;
pub mod scan;
pub mod script;

use alloy_primitives::Address;

/// What an envelope begins with.
pub const MAGIC: &[u8; 5] = b"bitai";
/// The only version so far.
pub const VERSION: u8 = 1;
/// The only codec so far: one zstd frame that holds an RLP list of raw transactions.
pub const CODEC_ZSTD_RLP: u8 = 1;
/// Bytes of the header push: version, genesis id, fee recipient, codec.
pub const HEADER_LEN: usize = 26;
/// Bytes of one payload push in the IF form (consensus limit of a script element).
pub const PUSH_MAX: usize = 520;
/// Bytes of one payload push in the DROP form.
pub const DROP_PUSH_MAX: usize = 256;
/// Bytes of a payload as inscribed: what fits a block by consensus, whatever relay policy says.
pub const PAYLOAD_MAX: usize = 4_000_000;
/// Bytes of a payload when decompressed.
pub const OUTPUT_MAX: usize = 4 << 20;
/// Decompressed bytes per inscribed byte: bounds what a full Bitcoin block can make a node execute.
pub const RATIO_MAX: usize = 16;
/// Largest zstd window, bytes.
pub const WINDOW_MAX: u64 = 8 << 20;
/// Transactions in one envelope.
pub const TXS_MAX: usize = 65_536;
/// Payload bytes of one reveal that today's relay policy carries (400,000 weight units in all); a limit of
/// the inscriber, not of the protocol.
pub const REVEAL_PAYLOAD_MAX: usize = 395_000;

/// The 26 bytes after the magic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// First 4 bytes of the genesis hash of the BitAI chain meant.
    pub genesis_id: [u8; 4],
    /// COINBASE of the envelope's transactions.
    pub fee_recipient: Address,
}

impl Header {
    /// `version ‖ genesis id ‖ fee recipient ‖ codec`.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0] = VERSION;
        out[1..5].copy_from_slice(&self.genesis_id);
        out[5..25].copy_from_slice(self.fee_recipient.as_slice());
        out[25] = CODEC_ZSTD_RLP;
        out
    }

    /// Reads a header meant for the chain `genesis_id`.
    pub fn decode(bytes: &[u8], genesis_id: [u8; 4]) -> Result<Self, Void> {
        let bytes: &[u8; HEADER_LEN] = bytes.try_into().map_err(|_| Void::HeaderLength)?;
        if bytes[0] != VERSION {
            return Err(Void::Version);
        }
        if bytes[1..5] != genesis_id {
            return Err(Void::ForeignChain);
        }
        if bytes[25] != CODEC_ZSTD_RLP {
            return Err(Void::Codec);
        }
        Ok(Self {
            genesis_id,
            fee_recipient: Address::from_slice(&bytes[5..25]),
        })
    }
}

/// Why an envelope is void. Counted, never fatal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Void {
    /// The script ends, or goes on with something that is no push, inside the envelope.
    #[error("the envelope is not a run of pushes closed by OP_ENDIF")]
    Unclosed,
    /// A push is empty or too long for its form.
    #[error("a push is empty or longer than its form allows")]
    PushLength,
    /// The header push has not 26 bytes.
    #[error("the header has not {HEADER_LEN} bytes")]
    HeaderLength,
    /// Not version 1.
    #[error("the version is not {VERSION}")]
    Version,
    /// Another chain's genesis id.
    #[error("the genesis id is another chain's")]
    ForeignChain,
    /// Unknown codec.
    #[error("the codec is not {CODEC_ZSTD_RLP}")]
    Codec,
    /// No payload, or more than [`PAYLOAD_MAX`].
    #[error("the payload is empty or over {PAYLOAD_MAX} bytes")]
    PayloadLength,
    /// No zstd frame of the kind that is allowed.
    #[error("not one zstd frame with declared size, without dictionary and reserved bits")]
    Frame,
    /// Window over [`WINDOW_MAX`].
    #[error("the zstd window is over {WINDOW_MAX} bytes")]
    Window,
    /// Output over [`OUTPUT_MAX`] or over [`RATIO_MAX`] times the payload.
    #[error("the output is over {OUTPUT_MAX} bytes or over {RATIO_MAX} times the payload")]
    Output,
    /// The frame does not decompress to what it declares.
    #[error("the zstd frame is corrupt")]
    Corrupt,
    /// Not a canonical RLP list of non-empty byte strings.
    #[error("not a canonical RLP list of non-empty byte strings")]
    Rlp,
    /// No transaction, or more than [`TXS_MAX`].
    #[error("the list is empty or over {TXS_MAX} transactions")]
    Count,
}
