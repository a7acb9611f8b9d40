//! Envelopes in a script: the strict reader of both forms, and the writer of the IF form that the inscriber
//! uses.
//!
//! ```text
//! IF form    OP_FALSE OP_IF "bitai" <header> <payload push>+ OP_ENDIF          pushes <= 520 B
//! DROP form  "bitai" OP_DROP <header> OP_DROP (<payload push> OP_DROP)+        pushes <= 256 B
//! ```

use super::{DROP_PUSH_MAX, Header, MAGIC, PAYLOAD_MAX, PUSH_MAX, Void};
use bitcoin::opcodes::all::{
    OP_CHECKSIG, OP_DROP, OP_ENDIF, OP_IF, OP_PUSHDATA1, OP_PUSHDATA2, OP_PUSHDATA4,
};
use bitcoin::script::{Builder, PushBytes, ScriptBuf};
use bitcoin::secp256k1::XOnlyPublicKey;

/// One instruction of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step<'a> {
    /// Opcodes 0x00 to 0x4e, in any encoding of the length: what counts is the data.
    Push(&'a [u8]),
    /// Any other opcode.
    Op(u8),
}

/// Reads the instruction at `at`; `None` at the end and where a push runs over it.
fn step(script: &[u8], at: usize) -> Option<(Step<'_>, usize)> {
    let op = *script.get(at)?;
    let (skip, width) = match op {
        _ if op == OP_PUSHDATA1.to_u8() => (1, 1),
        _ if op == OP_PUSHDATA2.to_u8() => (1, 2),
        _ if op == OP_PUSHDATA4.to_u8() => (1, 4),
        0..=75 => (0, 1),
        _ => return Some((Step::Op(op), at + 1)),
    };
    let field = script.get(at + skip..at + skip + width)?;
    let mut le = [0; 4];
    le[..width].copy_from_slice(field);
    let len = usize::try_from(u32::from_le_bytes(le)).ok()?;
    let start = at + skip + width;
    let end = start.checked_add(len)?;
    Some((Step::Push(script.get(start..end)?), end))
}

/// An envelope as it stands in the script: header bytes and payload, or why it is void.
pub type Found = Result<(Vec<u8>, Vec<u8>), Void>;

/// All envelopes of a script, void ones included: an envelope's index is its place in this list.
///
/// Reading goes on after an envelope's last instruction; after a void one it goes on at the instruction that
/// broke it, which may begin the next.
pub fn find(script: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((first, after)) = step(script, at) {
        let if_form = first == Step::Push(&[])
            && step(script, after).is_some_and(|(s, next)| {
                s == Step::Op(OP_IF.to_u8())
                    && step(script, next).is_some_and(|(s, _)| s == Step::Push(MAGIC))
            });
        let drop_form = first == Step::Push(MAGIC)
            && step(script, after).is_some_and(|(s, _)| s == Step::Op(OP_DROP.to_u8()));
        at = if if_form {
            // OP_FALSE, OP_IF and the magic have passed: 1 byte, and however the other two were encoded.
            let (_, magic) = step(script, after).expect("it was just read");
            let (_, body) = step(script, magic).expect("it was just read");
            read_if(script, body, &mut found)
        } else if drop_form {
            let (_, body) = step(script, after).expect("it was just read");
            read_drop(script, body, &mut found)
        } else {
            after
        };
    }
    found
}

/// Collects pushes; one fault is enough to void the whole.
#[derive(Default)]
struct Body {
    header: Option<Vec<u8>>,
    payload: Vec<u8>,
    fault: Option<Void>,
}

impl Body {
    fn take(&mut self, data: &[u8], push_max: usize) {
        if data.is_empty() || data.len() > push_max {
            self.fault.get_or_insert(Void::PushLength);
        } else if self.header.is_none() {
            self.header = Some(data.to_vec());
        } else if self.payload.len() + data.len() > PAYLOAD_MAX {
            self.fault.get_or_insert(Void::PayloadLength);
        } else {
            self.payload.extend_from_slice(data);
        }
    }

    fn finish(self) -> Found {
        match (self.fault, self.header) {
            (Some(fault), _) => Err(fault),
            (None, None) => Err(Void::HeaderLength),
            (None, Some(_)) if self.payload.is_empty() => Err(Void::PayloadLength),
            (None, Some(header)) => Ok((header, self.payload)),
        }
    }
}

/// Pushes up to OP_ENDIF; returns where reading goes on.
fn read_if(script: &[u8], mut at: usize, found: &mut Vec<Found>) -> usize {
    let mut body = Body::default();
    loop {
        match step(script, at) {
            // An empty push may begin the next envelope, so it ends this one.
            Some((Step::Push(data), next)) if !data.is_empty() => {
                body.take(data, PUSH_MAX);
                at = next;
            }
            Some((Step::Op(op), next)) if op == OP_ENDIF.to_u8() => {
                found.push(body.finish());
                return next;
            }
            _ => {
                found.push(Err(Void::Unclosed));
                return at;
            }
        }
    }
}

/// `push OP_DROP` pairs up to the first other instruction; returns where reading goes on.
fn read_drop(script: &[u8], mut at: usize, found: &mut Vec<Found>) -> usize {
    let mut body = Body::default();
    while let Some((Step::Push(data), after)) = step(script, at) {
        let Some((Step::Op(op), next)) = step(script, after) else {
            break;
        };
        if op != OP_DROP.to_u8() {
            break;
        }
        body.take(data, DROP_PUSH_MAX);
        at = next;
    }
    found.push(body.finish());
    at
}

/// `<key> OP_CHECKSIG OP_FALSE OP_IF "bitai" <header> <payload pushes> OP_ENDIF`: the leaf script of a
/// reveal. The key stands first, so that a node without the payload could still see whose it is.
pub fn build(key: &XOnlyPublicKey, header: &Header, payload: &[u8]) -> ScriptBuf {
    let mut builder = Builder::new()
        .push_x_only_key(key)
        .push_opcode(OP_CHECKSIG)
        .push_opcode(bitcoin::opcodes::OP_FALSE)
        .push_opcode(OP_IF)
        .push_slice(MAGIC)
        .push_slice(header.encode());
    for chunk in payload.chunks(PUSH_MAX) {
        let chunk: &PushBytes = chunk.try_into().expect("a chunk has at most 520 bytes");
        builder = builder.push_slice(chunk);
    }
    builder.push_opcode(OP_ENDIF).into_script()
}

/// The same in the DROP form: `"bitai" OP_DROP <header> OP_DROP (<payload push> OP_DROP)+ <key> OP_CHECKSIG`.
/// Its pushes are executed, so relay policy wants them minimal: no push of a single byte.
pub fn build_drop(key: &XOnlyPublicKey, header: &Header, payload: &[u8]) -> ScriptBuf {
    let mut builder = Builder::new()
        .push_slice(MAGIC)
        .push_opcode(OP_DROP)
        .push_slice(header.encode())
        .push_opcode(OP_DROP);
    let mut rest = payload;
    while !rest.is_empty() {
        let take = match rest.len() {
            len if len == DROP_PUSH_MAX + 1 => DROP_PUSH_MAX - 1,
            len => len.min(DROP_PUSH_MAX),
        };
        let (chunk, after) = rest.split_at(take);
        let chunk: &PushBytes = chunk.try_into().expect("a chunk has at most 256 bytes");
        builder = builder.push_slice(chunk).push_opcode(OP_DROP);
        rest = after;
    }
    builder
        .push_x_only_key(key)
        .push_opcode(OP_CHECKSIG)
        .into_script()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::Address;
    use bitcoin::secp256k1::{Keypair, Secp256k1};
    use proptest::prelude::*;

    fn key() -> XOnlyPublicKey {
        Keypair::from_seckey_slice(&Secp256k1::new(), &[7; 32])
            .unwrap()
            .x_only_public_key()
            .0
    }

    fn header() -> Header {
        Header {
            genesis_id: [1, 2, 3, 4],
            fee_recipient: Address::repeat_byte(9),
        }
    }

    fn payload(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn both_forms_go_round_at_the_push_boundaries() {
        // 75/76 and 255/256 change the push opcode, 520 and 256 the number of pushes.
        for len in [
            1, 2, 75, 76, 255, 256, 257, 258, 512, 513, 519, 520, 521, 1040, 5000, 395_000,
        ] {
            let want: Vec<Found> = vec![Ok((header().encode().to_vec(), payload(len)))];
            assert_eq!(
                find(build(&key(), &header(), &payload(len)).as_bytes()),
                want,
                "{len}"
            );
            assert_eq!(
                find(build_drop(&key(), &header(), &payload(len)).as_bytes()),
                want,
                "{len}"
            );
        }
    }

    #[test]
    fn several_envelopes_have_their_order_and_a_void_one_counts() {
        let one = build(&key(), &header(), &payload(600));
        let two = build_drop(&key(), &header(), &payload(300));
        let void = [0x00, 0x63, 5, b'b', b'i', b't', b'a', b'i', 0x68];
        let script = [one.as_bytes(), &void, two.as_bytes(), one.as_bytes()].concat();
        let found = find(&script);
        assert_eq!(found.len(), 4);
        assert_eq!(found[1], Err(Void::HeaderLength));
        assert_eq!(found[0], found[3]);
        assert_eq!(found[2].as_ref().unwrap().1.len(), 300);
    }

    #[test]
    fn rejects_an_opcode_in_the_envelope_and_reads_on_from_it() {
        let good = build(&key(), &header(), &payload(10));
        let good = &good.as_bytes()[34..];
        let mut cut = good[..good.len() - 1].to_vec();
        cut.extend_from_slice(good);
        assert_eq!(find(&cut).len(), 2);
        assert_eq!(find(&cut)[0], Err(Void::Unclosed));
        assert!(find(&cut)[1].is_ok());
        for op in [0x51u8, 0x4f, 0x60, 0x61, 0xff] {
            let mut bad = good[..good.len() - 1].to_vec();
            bad.extend([op, 0x68]);
            assert_eq!(find(&bad), vec![Err(Void::Unclosed)], "{op:#x}");
        }
    }

    #[test]
    fn rejects_pushes_over_the_form_s_limit() {
        let mut long = vec![0x00, 0x63, 5];
        long.extend(MAGIC);
        long.push(26);
        long.extend(header().encode());
        long.extend([0x4d, 0x09, 0x02]);
        long.extend(vec![1; 521]);
        long.push(0x68);
        assert_eq!(find(&long), vec![Err(Void::PushLength)]);
        let mut long = vec![5];
        long.extend(MAGIC);
        long.extend([0x75, 26]);
        long.extend(header().encode());
        long.extend([0x75, 0x4d, 0x01, 0x01]);
        long.extend(vec![1; 257]);
        long.push(0x75);
        assert_eq!(find(&long), vec![Err(Void::PushLength)]);
    }

    #[test]
    fn rejects_an_envelope_cut_off_anywhere() {
        let script = build(&key(), &header(), &payload(700));
        let bytes = script.as_bytes();
        for end in 0..bytes.len() {
            assert!(find(&bytes[..end]).iter().all(Result::is_err), "{end}");
        }
    }

    #[test]
    fn ignores_other_people_s_envelopes() {
        let ord = [&[0x00, 0x63, 3][..], b"ord", &[1, 1, 0x68]].concat();
        assert!(find(&ord).is_empty());
    }

    proptest! {
        #[test]
        fn never_panics_on_noise(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = find(&bytes);
            let mut script = vec![0x00, 0x63, 5];
            script.extend(MAGIC);
            script.extend(&bytes);
            prop_assert!(!find(&script).is_empty());
        }

        #[test]
        fn one_mutated_byte_never_makes_a_second_envelope(at in any::<usize>(), with in 1u8.., drop in any::<bool>()) {
            let script = if drop { build_drop(&key(), &header(), &payload(900)) } else { build(&key(), &header(), &payload(900)) };
            let mut bytes = script.to_bytes();
            let at = at % bytes.len();
            bytes[at] ^= with;
            prop_assert!(find(&bytes).iter().filter(|f| f.is_ok()).count() <= 1);
        }
    }
}
