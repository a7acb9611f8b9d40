//! Payload codec: raw transactions <-> RLP list <-> one zstd frame (RFC 8878) under the protocol's caps.

use super::frame::{self, FrameHeader};
use super::{OUTPUT_MAX, PAYLOAD_MAX, RATIO_MAX, TXS_MAX, Void, WINDOW_MAX};
use alloy_primitives::Bytes;
use alloy_rlp::Header;

/// Magic of a zstd frame.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Level of the inscriber's compression: a batch is small and a satoshi dear.
const LEVEL: i32 = 19;
/// Steps of the search for the shortest stored front: to a 256th of the list.
const FRONT_TRIES: u32 = 8;
/// Largest raw block of a zstd frame.
const RAW_BLOCK_MAX: usize = 128 << 10;

/// Why transactions cannot become one payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Nothing, too many, or an empty one.
    #[error("{count} transactions; an envelope takes 1 to {TXS_MAX}, none of them empty")]
    Count {
        /// How many.
        count: usize,
    },
    /// Too long.
    #[error("the list has {len} bytes, over the {OUTPUT_MAX} of one envelope; split it")]
    TooLong {
        /// Length of the RLP list.
        len: usize,
    },
    /// The compressor failed.
    #[error("zstd: {0}")]
    Zstd(String),
}

/// The RLP list of `txs`.
pub fn rlp_list(txs: &[Bytes]) -> Vec<u8> {
    let inner: usize = txs.iter().map(alloy_rlp::Encodable::length).sum();
    let mut out = Vec::with_capacity(inner + 9);
    Header {
        list: true,
        payload_length: inner,
    }
    .encode(&mut out);
    for tx in txs {
        alloy_rlp::Encodable::encode(tx, &mut out);
    }
    out
}

/// Compresses `txs` into the payload of one envelope; [`decode`] takes every payload that this makes.
pub fn encode(txs: &[Bytes]) -> Result<Vec<u8>, EncodeError> {
    encode_at_least(txs, 0)
}

/// The same, but where compression would leave fewer than `min_len` bytes, as much of the front is stored as it takes.
pub fn encode_at_least(txs: &[Bytes], min_len: usize) -> Result<Vec<u8>, EncodeError> {
    if txs.is_empty() || txs.len() > TXS_MAX || txs.iter().any(|tx| tx.is_empty()) {
        return Err(EncodeError::Count { count: txs.len() });
    }
    let list = rlp_list(txs);
    if list.len() > OUTPUT_MAX {
        return Err(EncodeError::TooLong { len: list.len() });
    }
    let packed = zstd::bulk::compress(&list, LEVEL).map_err(|e| EncodeError::Zstd(e.to_string()))?;
    // Zeros compress better than the ratio allows: then raw blocks, padded by nothing, keep within it.
    let min_len = min_len.max(list.len().div_ceil(RATIO_MAX));
    if packed.len() < min_len {
        return Ok(store_front(&list, min_len));
    }
    Ok(packed)
}

/// A frame of at least `min_len` bytes: a raw block in front and the rest compressed, by bisection with as short a front
/// as does; all raw where that is not found, and for a long list, since each try compresses it anew.
fn store_front(list: &[u8], min_len: usize) -> Vec<u8> {
    let mut best = store(list);
    if list.len() > RAW_BLOCK_MAX {
        return best;
    }
    let (mut low, mut high) = (0, list.len());
    for _ in 0..FRONT_TRIES {
        let middle = low + (high - low) / 2;
        match front(list, middle).filter(|frame| frame.len() >= min_len) {
            Some(frame) => {
                high = middle;
                if frame.len() < best.len() {
                    best = frame;
                }
            }
            None => low = middle,
        }
    }
    best
}

/// A frame whose first `stored` bytes, at most [`RAW_BLOCK_MAX`], are a raw block; the blocks of the rest are those of a
/// frame of its own, which look back no further than to its beginning. `None` where its reader would not give the list.
fn front(list: &[u8], stored: usize) -> Option<Vec<u8>> {
    let (raw, rest) = list.split_at(stored);
    let packed = zstd::bulk::compress(rest, LEVEL).ok()?;
    let header = frame_header(&packed).ok().filter(|h| !h.checksum)?;
    let mut out = MAGIC.to_vec();
    out.push(0b1010_0000);
    out.extend_from_slice(&u32::try_from(list.len()).ok()?.to_le_bytes());
    out.extend_from_slice(&(u32::try_from(stored).ok()? << 3).to_le_bytes()[..3]);
    out.extend_from_slice(raw);
    out.extend_from_slice(&packed[header.len..]);
    let whole = frame_header(&out).ok()?;
    let (read, behind) = frame::decode(&out, &whole)?;
    (read == list && behind.is_empty()).then_some(out)
}

/// A frame of raw blocks: single segment, 4-byte content size.
fn store(list: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(list.len() + 64);
    out.extend_from_slice(&MAGIC);
    out.push(0b1010_0000);
    let size = u32::try_from(list.len()).expect("the caller checked it against OUTPUT_MAX");
    out.extend_from_slice(&size.to_le_bytes());
    let blocks = list.chunks(RAW_BLOCK_MAX);
    let last = blocks.len() - 1;
    for (i, block) in blocks.enumerate() {
        let size = u32::try_from(block.len()).expect("a chunk has at most RAW_BLOCK_MAX bytes");
        let header = (size << 3) | u32::from(i == last);
        out.extend_from_slice(&header.to_le_bytes()[..3]);
        out.extend_from_slice(block);
    }
    out
}

/// Header of a frame that the protocol allows.
pub(super) fn frame_header(payload: &[u8]) -> Result<FrameHeader, Void> {
    let rest = payload.strip_prefix(&MAGIC).ok_or(Void::Frame)?;
    let (&descriptor, rest) = rest.split_first().ok_or(Void::Frame)?;
    // Bits 1-0: dictionary id. Bit 3: reserved. Bit 4: unused, and pinned to 0 so that a frame has one form.
    if descriptor & 0b0001_1011 != 0 {
        return Err(Void::Frame);
    }
    let single = descriptor & 0b0010_0000 != 0;
    let mut rest = rest;
    let mut window = u64::MAX;
    if !single {
        let (&exponent, after) = rest.split_first().ok_or(Void::Frame)?;
        rest = after;
        let base = 1u64 << (10 + (exponent >> 3));
        window = base + base / 8 * u64::from(exponent & 7);
        if window > WINDOW_MAX {
            return Err(Void::Window);
        }
    }
    let bytes = match (descriptor >> 6, single) {
        (0, true) => 1,
        (0, false) => return Err(Void::Frame),
        (flag, _) => 1usize << flag,
    };
    let field = rest.get(..bytes).ok_or(Void::Frame)?;
    let mut le = [0; 8];
    le[..bytes].copy_from_slice(field);
    // The 2-byte form counts from 256 (RFC 8878, 3.1.1.1.4).
    let size = u64::from_le_bytes(le).saturating_add(if bytes == 2 { 256 } else { 0 });
    let most = OUTPUT_MAX.min(payload.len().saturating_mul(RATIO_MAX));
    let size = usize::try_from(size)
        .ok()
        .filter(|size| *size <= most)
        .ok_or(Void::Output)?;
    Ok(FrameHeader {
        len: payload.len() - (rest.len() - bytes),
        size,
        // A single segment is its own window.
        window: usize::try_from(window).map_or(size, |window| if single { size } else { window }),
        checksum: descriptor & 0b0000_0100 != 0,
    })
}

/// The raw transactions of a payload. They may be malformed themselves: the state machine drops those.
pub fn decode(payload: &[u8]) -> Result<Vec<Bytes>, Void> {
    if payload.is_empty() || payload.len() > PAYLOAD_MAX {
        return Err(Void::PayloadLength);
    }
    let header = frame_header(payload)?;
    let (list, rest) = frame::decode(payload, &header).ok_or(Void::Corrupt)?;
    // Exactly one frame: no second one, no skippable one, no bytes after it.
    if !rest.is_empty() {
        return Err(Void::Frame);
    }
    rlp_decode(&list)
}

fn rlp_decode(list: &[u8]) -> Result<Vec<Bytes>, Void> {
    let mut rest = list;
    let mut items = Header::decode_bytes(&mut rest, true).map_err(|_| Void::Rlp)?;
    if !rest.is_empty() {
        return Err(Void::Rlp);
    }
    let mut txs = Vec::new();
    while !items.is_empty() {
        let tx = Header::decode_bytes(&mut items, false).map_err(|_| Void::Rlp)?;
        if tx.is_empty() {
            return Err(Void::Rlp);
        }
        if txs.len() == TXS_MAX {
            return Err(Void::Count);
        }
        txs.push(Bytes::copy_from_slice(tx));
    }
    if txs.is_empty() {
        return Err(Void::Count);
    }
    Ok(txs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn txs(n: usize) -> Vec<Bytes> {
        (0..n)
            .map(|i| Bytes::from(vec![2 + (i % 200) as u8; 100 + i]))
            .collect()
    }

    #[test]
    fn goes_round() {
        for n in [1, 2, 50, 1000] {
            let txs: Vec<Bytes> = (0..n)
                .map(|i| Bytes::from(blake3::hash(&[i as u8]).as_bytes().to_vec()))
                .collect();
            assert_eq!(decode(&encode(&txs).unwrap()).unwrap(), txs);
        }
    }

    #[test]
    fn stores_hardly_more_than_it_must() {
        let txs: Vec<Bytes> = (0..60)
            .map(|i| {
                let hash = blake3::hash(&[i]);
                Bytes::from([&hash.as_bytes()[..], &[0; 40]].concat())
            })
            .collect();
        let (packed, list) = (encode(&txs).unwrap().len(), rlp_list(&txs).len());
        assert!(packed * 3 < list * 2, "{packed} {list}");
        for min_len in (packed..list).step_by(37) {
            let payload = encode_at_least(&txs, min_len).unwrap();
            assert!(
                (min_len..min_len + 120).contains(&payload.len()),
                "{min_len} {}",
                payload.len()
            );
            assert_eq!(decode(&payload).unwrap(), txs);
        }
    }

    #[test]
    fn what_compresses_too_well_is_stored_within_the_ratio() {
        let zeros = vec![Bytes::from(vec![0u8; 300_000])];
        let payload = encode(&zeros).unwrap();
        assert!(payload.len() > 300_000);
        assert_eq!(decode(&payload).unwrap(), zeros);
    }

    #[test]
    fn rejects_a_bomb() {
        let list = rlp_list(&[Bytes::from(vec![0u8; 300_000])]);
        let packed = zstd::bulk::compress(&list, 19).unwrap();
        assert_eq!(decode(&packed), Err(Void::Output));
    }

    #[test]
    fn rejects_a_second_frame_a_skippable_frame_and_bytes_after() {
        let one = encode(&txs(3)).unwrap();
        let two = [one.clone(), one.clone()].concat();
        assert_eq!(decode(&two), Err(Void::Frame));
        let skippable = [&one[..], &[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9]].concat();
        assert_eq!(decode(&skippable), Err(Void::Frame));
        assert_eq!(decode(&[&one[..], &[0]].concat()), Err(Void::Frame));
        assert_eq!(decode(&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9]), Err(Void::Frame));
    }

    #[test]
    fn rejects_a_frame_that_does_not_declare_its_size() {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_contentsize(false).unwrap();
        std::io::Write::write_all(&mut encoder, &rlp_list(&txs(3))).unwrap();
        assert_eq!(decode(&encoder.finish().unwrap()), Err(Void::Frame));
    }

    #[test]
    fn rejects_a_window_over_the_cap() {
        // Not single segment, 1-byte-sized FCS impossible: flag 2 (4 bytes), window exponent 14 = 16 MiB.
        let mut frame = MAGIC.to_vec();
        frame.extend([0b1000_0000, 14 << 3, 4, 0, 0, 0, 0x21, 0, 0]);
        frame.extend([0xc3, 0x82, 1, 2]);
        assert_eq!(decode(&frame), Err(Void::Window));
        frame[5] = 0;
        assert_eq!(decode(&frame).unwrap(), vec![Bytes::from(vec![1, 2])]);
    }

    #[test]
    fn rejects_a_declared_size_that_is_a_lie() {
        for lie in [3u8, 5] {
            let mut frame = MAGIC.to_vec();
            frame.extend([0b1010_0000, lie, 0, 0, 0, 0x21, 0, 0, 0xc3, 0x82, 1, 2]);
            assert_eq!(decode(&frame), Err(Void::Corrupt), "{lie}");
        }
    }

    #[test]
    fn rejects_rlp_that_is_no_list_of_strings() {
        let pack = |list: &[u8]| decode(&store(list));
        assert_eq!(pack(&[0xc3, 0x82, 1, 2]).unwrap().len(), 1);
        for bad in [
            &[0x82, 1, 2][..],      // a string
            &[0xc1, 0x80],          // an empty transaction
            &[0xc1, 0xc0],          // a list in the list
            &[0xc2, 0x81, 0x05],    // not canonical: 5 stands for itself
            &[0xc3, 0x82, 1, 2, 0], // a byte after the list
            &[0xc4, 0x82, 1, 2],    // shorter than it says
            &[0xf8, 3, 0x82, 1, 2], // long form for a short list
        ] {
            assert_eq!(pack(bad), Err(Void::Rlp), "{bad:?}");
        }
        assert_eq!(pack(&[0xc0]), Err(Void::Count));
    }

    #[test]
    fn refuses_to_encode_what_no_envelope_takes() {
        assert_eq!(encode(&[]), Err(EncodeError::Count { count: 0 }));
        assert_eq!(encode(&[Bytes::new()]), Err(EncodeError::Count { count: 1 }));
        let big = Bytes::from(vec![7u8; OUTPUT_MAX]);
        assert!(matches!(encode(&[big]), Err(EncodeError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn never_panics_on_noise(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = decode(&bytes);
            let mut framed = MAGIC.to_vec();
            framed.extend(&bytes);
            let _ = decode(&framed);
            let _ = rlp_decode(&bytes);
        }

        #[test]
        fn a_mutated_payload_is_void_or_still_a_list(at in any::<usize>(), with in 1u8..) {
            let mut payload = encode(&txs(20)).unwrap();
            let at = at % payload.len();
            payload[at] ^= with;
            if let Ok(list) = decode(&payload) {
                prop_assert!(!list.is_empty());
            }
        }
    }
}
