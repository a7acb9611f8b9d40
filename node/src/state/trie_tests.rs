//! The stored trie against alloy's builder, which knows nothing of storage or updates.

use super::*;
use alloy::consensus::proofs::storage_root_unsorted;
use alloy_primitives::U256;
use alloy_trie::Nibbles;
use alloy_trie::proof::verify_proof;
use proptest::prelude::*;

#[derive(Default)]
struct Memory(BTreeMap<Vec<u8>, Vec<u8>>);

impl NodeStore for Memory {
    fn node(&self, path: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.0.get(path).cloned())
    }
}

impl Memory {
    /// Applies one round of changes, as a block would.
    fn round(&mut self, root: B256, changes: &[(B256, u64)]) -> B256 {
        let mut trie = Trie::new(self, root);
        for (key, value) in changes {
            let rlp = (*value != 0).then(|| alloy_rlp::encode(U256::from(*value)));
            trie.set(*key, rlp).unwrap();
        }
        let (root, nodes) = trie.finish();
        for (path, rlp) in nodes {
            match rlp {
                Some(rlp) => self.0.insert(path, rlp),
                None => self.0.remove(&path),
            };
        }
        root
    }
}

/// Keys that share long prefixes, so that extensions split and branches collapse; some end in nothing but a
/// nibble of difference, so that nodes are inlined.
fn key() -> impl Strategy<Value = B256> {
    (0usize..4, 0u8..4, 0u8..3).prop_map(|(place, byte, low)| {
        let mut key = [0x11u8; 32];
        key[[0, 1, 16, 31][place]] = byte << 4 | low;
        B256::new(key)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn updates_in_rounds_give_the_root_of_the_whole(
        rounds in proptest::collection::vec(proptest::collection::vec((key(), 0u64..4), 0..12), 1..6)
    ) {
        let mut memory = Memory::default();
        let mut root = EMPTY_ROOT;
        let mut plain: BTreeMap<B256, u64> = BTreeMap::new();
        for round in &rounds {
            root = memory.round(root, round);
            for (key, value) in round {
                if *value == 0 { plain.remove(key); } else { plain.insert(*key, *value); }
            }
            let want = storage_root_unsorted(plain.iter().map(|(k, v)| (*k, U256::from(*v))));
            prop_assert_eq!(root, want);
            // Nothing is left over: the records are exactly those of a trie built at once.
            let mut fresh = Memory::default();
            let all: Vec<_> = plain.iter().map(|(k, v)| (*k, *v)).collect();
            fresh.round(EMPTY_ROOT, &all);
            prop_assert_eq!(&memory.0, &fresh.0);
        }
        // Every key, present or not, proves what it is.
        for key in plain.keys().copied().chain([B256::repeat_byte(0x11), B256::repeat_byte(0x77)]) {
            let proof: Vec<_> = prove(&memory, root, key).unwrap().into_iter().map(Into::into).collect();
            let value = plain.get(&key).map(|v| alloy_rlp::encode(U256::from(*v)));
            prop_assert!(verify_proof(root, Nibbles::unpack(key), value, &proof).is_ok());
        }
    }

    #[test]
    fn decoder_survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = decode(&bytes);
    }
}

#[test]
fn rejects_a_missing_node() {
    let mut memory = Memory::default();
    let root = memory.round(
        EMPTY_ROOT,
        &[(B256::repeat_byte(1), 1), (B256::repeat_byte(2), 2)],
    );
    memory.0.clear();
    assert!(prove(&memory, root, B256::repeat_byte(1)).is_err());
}

#[test]
fn rejects_a_node_that_does_not_hash_to_its_link() {
    let mut memory = Memory::default();
    let root = memory.round(
        EMPTY_ROOT,
        &[(B256::repeat_byte(1), 1), (B256::repeat_byte(2), 2)],
    );
    for rlp in memory.0.values_mut() {
        let last = rlp.len() - 1;
        rlp[last] ^= 1;
    }
    assert!(prove(&memory, root, B256::repeat_byte(1)).is_err());
}
