//! Keys on disk: encrypted v3 keystores, readable by their owner alone. Passwords come from a file or a prompt
//! and never from the command line; no key and no password is ever logged.

use std::{
    fs,
    path::{Path, PathBuf},
};

use alloy::signers::local::PrivateKeySigner;
use alloy_primitives::Address;
use serde::Deserialize;

use crate::{
    cli::KeyArgs,
    datadir::{DataDir, make_dir, write_atomic},
    exit::Failure,
    published,
};

/// A key's name and address, without its password.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Listed {
    /// File name without `.json`.
    pub name: String,
    /// The account.
    pub address: Address,
    /// The file.
    pub path: PathBuf,
}

/// The part of a keystore that is readable without its password. Web3 keystores name the address without 0x;
/// ours carry it beside the standard fields, so that `show` and `status` need no password.
#[derive(Deserialize)]
struct Public {
    address: Option<String>,
}

fn bad(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::Keystore {
        path: path.into(),
        why: why.to_string(),
    }
}

/// File of a key: a path as it is, a name inside the data directory.
pub fn key_path(data: &DataDir, named: &str) -> PathBuf {
    if named.contains(std::path::MAIN_SEPARATOR) || Path::new(named).extension().is_some() {
        PathBuf::from(named)
    } else {
        data.keys().join(format!("{named}.json"))
    }
}

/// The keystore that is meant: the named one, or the only one there is.
pub fn choose(data: &DataDir, key: &KeyArgs) -> Result<PathBuf, Failure> {
    if let Some(named) = &key.keystore {
        let path = key_path(data, named);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(bad(&path, "not found. Make a key: bitai-miner wallet new"))
        };
    }
    match list(data)?.as_slice() {
        [] => Err(bad(
            &data.keys(),
            "no keys here. Make one: bitai-miner wallet new",
        )),
        [one] => Ok(one.path.clone()),
        many => many
            .iter()
            .find(|l| l.name == "default")
            .map(|l| l.path.clone())
            .ok_or_else(|| bad(&data.keys(), "several keys here; name one with --keystore")),
    }
}

/// The keys of a data directory, by name.
pub fn list(data: &DataDir) -> Result<Vec<Listed>, Failure> {
    let dir = data.keys();
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Failure::disk(dir, e)),
    };
    let mut keys = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Failure::disk(&dir, e))?.path();
        if path.extension().is_some_and(|e| e == "json") {
            let name = path
                .file_stem()
                .map(|s| s.to_string_lossy().into_owned())
                .unwrap_or_default();
            keys.push(Listed {
                name,
                address: address(&path)?,
                path,
            });
        }
    }
    keys.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(keys)
}

/// The address that a keystore file names; no password needed.
pub fn address(path: &Path) -> Result<Address, Failure> {
    let text = fs::read_to_string(path).map_err(|e| bad(path, e))?;
    let public: Public =
        serde_json::from_str(&text).map_err(|e| bad(path, format!("not a v3 keystore: {e}")))?;
    public
        .address
        .ok_or_else(|| bad(path, "names no address"))?
        .parse()
        .map_err(|e| bad(path, format!("address: {e}")))
}

/// File of a new key; refuses names that leave the directory, and those of keys that there are.
pub fn check_new_name(data: &DataDir, name: &str) -> Result<PathBuf, Failure> {
    if name.is_empty()
        || !name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    {
        return Err(Failure::Usage(format!(
            "key name `{name}`: use letters, digits, - and _"
        )));
    }
    let path = data.keys().join(format!("{name}.json"));
    if path.exists() {
        return Err(bad(
            &path,
            "exists already; a key is never replaced. Choose another name",
        ));
    }
    Ok(path)
}

/// Encrypts `signer` as `keys/NAME.json`, mode 600; refuses to replace a key.
pub fn store(
    data: &DataDir,
    name: &str,
    signer: &PrivateKeySigner,
    password: &str,
) -> Result<PathBuf, Failure> {
    let path = check_new_name(data, name)?;
    // alloy writes with the process's umask: into a directory of our own first, then out with mode 600.
    make_dir(&data.keys())?;
    let nest = Nest::new(&data.keys())?;
    PrivateKeySigner::encrypt_keystore(
        &nest.0,
        &mut rand::rngs::OsRng,
        signer.to_bytes(),
        password,
        Some("key"),
    )
    .map_err(|e| bad(&path, e))?;
    let made = nest.0.join("key");
    let text = fs::read_to_string(&made).map_err(|e| Failure::disk(&made, e))?;
    let mut json: serde_json::Value = serde_json::from_str(&text).map_err(|e| bad(&made, e))?;
    json["address"] = serde_json::Value::String(hex::encode(signer.address()));
    write_atomic(&path, json.to_string().as_bytes(), 0o600)?;
    Ok(path)
}

/// A directory only its owner can enter, removed with what it holds.
struct Nest(PathBuf);

impl Nest {
    fn new(parent: &Path) -> Result<Self, Failure> {
        let dir = parent.join(format!(
            ".new-{}-{:016x}",
            std::process::id(),
            rand::random::<u64>()
        ));
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&dir).map_err(|e| Failure::disk(&dir, e))?;
        Ok(Self(dir))
    }
}

impl Drop for Nest {
    fn drop(&mut self) {
        // Nothing can be done about a directory that will not go; it is unreadable to others and encrypted.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Decrypts a keystore.
pub fn unlock(path: &Path, password: &str) -> Result<PrivateKeySigner, Failure> {
    let text = fs::read_to_string(path).map_err(|e| bad(path, e))?;
    check_kdf(path, &text)?;
    let signer = PrivateKeySigner::decrypt_keystore(path, password)
        .map_err(|e| bad(path, format!("cannot be opened (wrong password?): {e}")))?;
    if let Ok(named) = address(path)
        && named != signer.address()
    {
        return Err(bad(
            path,
            format!("names {named} but holds the key of {}", signer.address()),
        ));
    }
    Ok(signer)
}

/// Refuses key derivation parameters that would eat all memory or divide by zero before any password is tried.
fn check_kdf(path: &Path, text: &str) -> Result<(), Failure> {
    let json: serde_json::Value =
        serde_json::from_str(text).map_err(|e| bad(path, format!("not a v3 keystore: {e}")))?;
    let crypto = json.get("crypto").or_else(|| json.get("Crypto"));
    let params = crypto
        .and_then(|c| c.get("kdfparams"))
        .ok_or_else(|| bad(path, "not a v3 keystore: no kdfparams"))?;
    let num = |k: &str| params.get(k).and_then(serde_json::Value::as_u64);
    if let Some(n) = num("n") {
        let fits = n.is_power_of_two() && (2..=1 << 20).contains(&n);
        let small = num("r").is_some_and(|r| (1..=32).contains(&r))
            && num("p").is_some_and(|p| (1..=16).contains(&p));
        if !fits || !small {
            return Err(bad(
                path,
                "scrypt parameters out of range (n a power of two up to 2^20, r to 32, p to 16)",
            ));
        }
    }
    Ok(())
}

/// The password: from the file (its first line), or asked for; `twice` for a new key.
pub fn password(file: Option<&Path>, twice: bool) -> Result<String, Failure> {
    if let Some(path) = file {
        if let Some(why) = readable_by_others(path) {
            tracing::warn!("{why}");
        }
        let text = fs::read_to_string(path).map_err(|e| bad(path, format!("password file: {e}")))?;
        return Ok(text.lines().next().unwrap_or_default().to_owned());
    }
    let ask = |prompt: &str| {
        rpassword::prompt_password(prompt).map_err(|e| {
            Failure::Usage(format!(
                "no terminal to ask for a password ({e}); use --password-file FILE"
            ))
        })
    };
    let first = ask("Password: ")?;
    if twice && ask("Again: ")? != first {
        return Err(Failure::Usage("the two passwords differ".into()));
    }
    Ok(first)
}

/// What to say of a secret's file that other users of the machine can read; `None` where they cannot.
pub fn readable_by_others(path: &Path) -> Option<String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
        (mode & 0o077 != 0).then(|| {
            format!(
                "{} can be read by others (mode {mode:o}); chmod 600 {0}",
                path.display()
            )
        })
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Chooses, asks and unlocks for a chain, on which the key must not be a published one.
pub fn open_on(data: &DataDir, key: &KeyArgs, chain_id: u64) -> Result<PrivateKeySigner, Failure> {
    let path = choose(data, key)?;
    if let Ok(who) = address(&path) {
        published::refuse(who, chain_id)?;
    }
    open(data, key)
}

/// Chooses, asks and unlocks.
pub fn open(data: &DataDir, key: &KeyArgs) -> Result<PrivateKeySigner, Failure> {
    let path = choose(data, key)?;
    unlock(&path, &password(key.password_file.as_deref(), false)?)
}

/// A private key as hex text, with or without 0x.
pub fn parse_key(text: &str) -> Result<PrivateKeySigner, Failure> {
    // The text itself never gets into the message.
    text.trim()
        .parse()
        .map_err(|_| Failure::Usage("the private key is not 64 hex digits of a valid key".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> (tempfile::TempDir, DataDir) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::resolve(Some(dir.path().into())).unwrap();
        (dir, data)
    }

    #[test]
    fn a_key_comes_back_with_its_password_and_only_its_owner_can_read_it() {
        let (_dir, data) = data();
        let signer = PrivateKeySigner::random();
        let path = store(&data, "default", &signer, "secret").unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(
            !fs::read_to_string(&path)
                .unwrap()
                .contains(&hex::encode(signer.to_bytes()))
        );
        assert_eq!(unlock(&path, "secret").unwrap().address(), signer.address());
        assert_eq!(list(&data).unwrap()[0].address, signer.address());
        assert_eq!(
            fs::read_dir(data.keys()).unwrap().count(),
            1,
            "only the keystore stays"
        );
    }

    #[test]
    fn rejects_a_wrong_password() {
        let (_dir, data) = data();
        let path = store(&data, "k", &PrivateKeySigner::random(), "a").unwrap();
        assert_eq!(unlock(&path, "b").unwrap_err().code(), 30);
    }

    #[test]
    fn rejects_replacing_a_key_and_names_that_leave_the_directory() {
        let (_dir, data) = data();
        let signer = PrivateKeySigner::random();
        store(&data, "k", &signer, "a").unwrap();
        assert_eq!(store(&data, "k", &signer, "a").unwrap_err().code(), 30);
        assert_eq!(store(&data, "../k", &signer, "a").unwrap_err().code(), 2);
    }

    #[test]
    fn rejects_a_keystore_that_would_eat_all_memory() {
        let (_dir, data) = data();
        let path = store(&data, "k", &PrivateKeySigner::random(), "a").unwrap();
        let mut json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        json["crypto"]["kdfparams"]["n"] = (1u64 << 40).into();
        fs::write(&path, json.to_string()).unwrap();
        assert_eq!(unlock(&path, "a").unwrap_err().code(), 30);
    }

    #[test]
    fn rejects_files_that_are_no_keystore() {
        let (_dir, data) = data();
        make_dir(&data.keys()).unwrap();
        let path = data.keys().join("x.json");
        for text in ["", "{}", "[1]", "{\"crypto\":{}}"] {
            fs::write(&path, text).unwrap();
            assert_eq!(unlock(&path, "a").unwrap_err().code(), 30, "{text}");
        }
    }

    #[test]
    fn a_bad_key_is_not_repeated_in_the_error() {
        let text = "0xdeadbeef";
        assert!(!parse_key(text).unwrap_err().to_string().contains("deadbeef"));
    }
}
