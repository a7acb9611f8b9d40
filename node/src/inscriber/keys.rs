//! The inscriber's keys: one 32-byte seed in a file, a BIP 86 account derived from it, one taproot key for
//! funds and change, another for the leaf scripts of reveals.

use bitcoin::bip32::{DerivationPath, Xpriv};
use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, TapTweak, TweakedKeypair};
use bitcoin::secp256k1::rand::{RngCore, rngs::OsRng};
use bitcoin::secp256k1::{All, Message, Secp256k1, XOnlyPublicKey};
use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{LeafVersion, TapLeafHash, TaprootBuilder, TaprootSpendInfo};
use bitcoin::{Address, Network, Script, ScriptBuf, Transaction, TxOut, Witness};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The seed file cannot be read or made.
    #[error("seed file {path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// What happened.
        why: String,
    },
    /// The seed file holds something else.
    #[error("seed file {path} must hold 64 hex digits; restore it from your backup or name another file")]
    Seed {
        /// Which.
        path: PathBuf,
    },
}

/// Keys of one network.
#[derive(Clone)]
pub struct Keys {
    secp: Secp256k1<All>,
    funds: Keypair,
    reveal: Keypair,
    network: Network,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// Derives `m/86'/coin'/0'/0/0` (funds and change) and `m/86'/coin'/0'/2/0` (reveals) from a seed.
    pub fn from_seed(seed: &[u8; 32], network: Network) -> Self {
        let secp = Secp256k1::new();
        let master =
            Xpriv::new_master(network, seed).expect("a 32-byte seed gives a master key but for 1 in 2^127");
        let coin = if network == Network::Bitcoin { 0 } else { 1 };
        let derive = |branch: u32| {
            let path: DerivationPath = format!("m/86'/{coin}'/0'/{branch}/0")
                .parse()
                .expect("it is written as BIP 32 wants it");
            let child = master
                .derive_priv(&secp, &path)
                .expect("a path of depth 5 can be derived");
            child.to_keypair(&secp)
        };
        Self {
            funds: derive(0),
            reveal: derive(2),
            secp,
            network,
        }
    }

    /// Reads the seed file, or makes it (mode 600, fsynced before anything is paid to it).
    pub fn open(path: &Path, network: Network) -> Result<Self, KeyError> {
        let file = |e: std::io::Error| KeyError::File {
            path: path.to_owned(),
            why: e.to_string(),
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let mut seed = [0u8; 32];
                OsRng.fill_bytes(&mut seed);
                let text = hex::encode(seed) + "\n";
                write_secret(path, text.as_bytes()).map_err(file)?;
                tracing::info!(path = %path.display(), "new seed; back it up, it is the only key to the inscriber's satoshis");
                text
            }
            Err(e) => return Err(file(e)),
        };
        let mut seed = [0; 32];
        hex::decode_to_slice(text.trim(), &mut seed).map_err(|_| KeyError::Seed {
            path: path.to_owned(),
        })?;
        Ok(Self::from_seed(&seed, network))
    }

    /// Where funds and change lie: key-path taproot.
    pub fn address(&self) -> Address {
        let (key, _) = self.funds.x_only_public_key();
        Address::p2tr(&self.secp, key, None, self.network)
    }

    /// The same as a script.
    pub fn script(&self) -> ScriptBuf {
        self.address().script_pubkey()
    }

    /// Key-path output of the reveal key: ours, and not counted as funds. Tests mine to it.
    #[cfg(test)]
    #[cfg(feature = "embedded-bitcoin")]
    pub(crate) fn reveal_key_script(&self) -> ScriptBuf {
        ScriptBuf::new_p2tr(&self.secp, self.reveal_key(), None)
    }

    /// Key of the leaf scripts.
    pub fn reveal_key(&self) -> XOnlyPublicKey {
        self.reveal.x_only_public_key().0
    }

    /// The taproot output that commits to `leaf`. Its key path is the reveal key, so that the coins can be
    /// taken back should a reveal become impossible.
    pub fn commit_output(&self, leaf: &Script) -> TaprootSpendInfo {
        TaprootBuilder::new()
            .add_leaf(0, leaf.to_owned())
            .expect("one leaf at depth 0 is a tree")
            .finalize(&self.secp, self.reveal_key())
            .expect("a tree of one leaf is complete")
    }

    /// Signs input `index` of `tx` by the key path of [`Keys::script`]; `spent` are the outputs of all inputs.
    pub fn sign_funds(&self, tx: &mut Transaction, index: usize, spent: &[TxOut]) {
        let hash = SighashCache::new(&*tx)
            .taproot_key_spend_signature_hash(index, &Prevouts::All(spent), TapSighashType::Default)
            .expect("the index is an input and every input has its output");
        let key: TweakedKeypair = self.funds.tap_tweak(&self.secp, None);
        let signature = self
            .secp
            .sign_schnorr(&Message::from_digest(hash.to_byte_array()), &key.to_keypair());
        tx.input[index].witness = Witness::from_slice(&[&signature.as_ref()[..]]);
    }

    /// Signs input `index` of `tx` by the leaf script; `spent` are the outputs of all inputs.
    pub fn sign_reveal(
        &self,
        tx: &mut Transaction,
        index: usize,
        spent: &[TxOut],
        leaf: &Script,
        info: &TaprootSpendInfo,
    ) {
        let leaf_hash = TapLeafHash::from_script(leaf, LeafVersion::TapScript);
        let hash = SighashCache::new(&*tx)
            .taproot_script_spend_signature_hash(
                index,
                &Prevouts::All(spent),
                leaf_hash,
                TapSighashType::Default,
            )
            .expect("the index is an input and every input has its output");
        let signature = self
            .secp
            .sign_schnorr(&Message::from_digest(hash.to_byte_array()), &self.reveal);
        let control = info
            .control_block(&(leaf.to_owned(), LeafVersion::TapScript))
            .expect("the leaf is the tree's only one");
        tx.input[index].witness =
            Witness::from_slice(&[&signature.as_ref()[..], leaf.as_bytes(), &control.serialize()[..]]);
    }
}

/// Writes a file that only its owner reads: temporary, fsync, rename, fsync of the folder.
fn write_secret(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let tmp = path.with_extension("tmp");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&tmp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&tmp, path)?;
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_file_is_made_once_and_gives_the_same_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed");
        let first = Keys::open(&path, Network::Regtest).unwrap();
        assert_eq!(
            first.address(),
            Keys::open(&path, Network::Regtest).unwrap().address()
        );
        assert_ne!(
            first.address(),
            Keys::open(&path, Network::Bitcoin).unwrap().address()
        );
        std::fs::write(&path, "12").unwrap();
        assert!(matches!(
            Keys::open(&path, Network::Regtest),
            Err(KeyError::Seed { .. })
        ));
    }
}
