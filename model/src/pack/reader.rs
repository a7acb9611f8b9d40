//! Reads a pack: structure at once and cheaply ([`Pack::open`]), every byte against the root on demand
//! ([`Pack::verify`]).

use std::{
    fs::File,
    io::Read,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bitai_kernels::{Hash, HostTensor, Program, TensorId};

use super::{
    HEADER_LEN, Header, MAGIC, MANIFEST_MAX, PACK_VERSION, PackError, align_up, manifest::Manifest,
    root::RootLeaves,
};

/// A pack's bytes: a memory map or memory.
pub type PackBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// An opened pack. Cheap to clone; tensors share its bytes.
#[derive(Clone)]
pub struct Pack {
    path: PathBuf,
    bytes: PackBytes,
    /// The map that the bytes are, where they are one.
    map: Option<Arc<memmap2::Mmap>>,
    manifest: Arc<Manifest>,
    program: Arc<Program>,
    leaves: Arc<RootLeaves>,
    root: Hash,
    tensors: Arc<Vec<Range<usize>>>,
    tokenizer: Range<usize>,
}

impl std::fmt::Debug for Pack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pack")
            .field("path", &self.path)
            .field("root", &hex::encode(self.root))
            .finish_non_exhaustive()
    }
}

/// A part of a pack's bytes, kept alive by it.
struct Slice {
    bytes: PackBytes,
    range: Range<usize>,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        // In range: `locate` checked every section against the length.
        &(*self.bytes).as_ref()[self.range.clone()]
    }
}

impl Pack {
    /// Maps the file and checks magic, version, length, manifest, program and the root over the manifest;
    /// no tensor byte is read. [`Pack::verify`] does the rest.
    pub fn open(path: &Path) -> Result<Self, PackError> {
        let mut file = File::open(path).map_err(PackError::io(path))?;
        // A foreign or empty file is named as such before anything is mapped (an empty one cannot be).
        let mut head = [0; 8];
        let mut got = 0;
        while got < head.len() {
            match file.read(&mut head[got..]).map_err(PackError::io(path))? {
                0 => break,
                n => got += n,
            }
        }
        check_magic(path, &head[..got])?;
        // SAFETY: a map is unsound if the file changes under it. Packs are only ever written to a temporary
        // name and renamed (`PackFile`), never in place; whoever edits one by hand while it is mapped breaks
        // this promise. Nothing here relies on the bytes keeping their value for memory safety beyond the
        // map itself: every offset was copied out and checked before use.
        #[allow(unsafe_code)]
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(PackError::io(path))?;
        let map = Arc::new(map);
        let mut pack = Self::from_bytes(Arc::clone(&map) as PackBytes, path)?;
        pack.map = Some(map);
        Ok(pack)
    }

    /// The same over bytes in memory; `path` is for error messages.
    pub fn from_bytes(bytes: PackBytes, path: &Path) -> Result<Self, PackError> {
        let data = (*bytes).as_ref();
        let header = read_header(path, data)?;
        let malformed = |why: String| PackError::Malformed {
            path: path.to_owned(),
            why,
        };
        let start = usize::try_from(header.manifest_at).map_err(|_| malformed("manifest offset".into()))?;
        // The header's check: the file ends exactly where the manifest does.
        let manifest = Manifest::decode(&data[start..]).map_err(malformed)?;
        if manifest.info.spec_version != crate::SPEC_VERSION {
            return Err(PackError::WrongSpec {
                path: path.to_owned(),
                got: manifest.info.spec_version,
                want: crate::SPEC_VERSION,
            });
        }
        let (tensors, tokenizer) = locate(&manifest, header.manifest_at).map_err(malformed)?;
        let program_error = |source| PackError::Program {
            path: path.to_owned(),
            source,
        };
        let leaves = RootLeaves::of(&manifest).map_err(program_error)?;
        let root = leaves.root();
        if root != header.root {
            return Err(PackError::Root {
                path: path.to_owned(),
                want: hex::encode(header.root),
                got: hex::encode(root),
            });
        }
        let program = Arc::new(manifest.program.clone());
        program.validate().map_err(program_error)?;
        Ok(Self {
            path: path.to_owned(),
            bytes,
            map: None,
            manifest: Arc::new(manifest),
            program,
            leaves: Arc::new(leaves),
            root,
            tensors: Arc::new(tensors),
            tokenizer,
        })
    }

    /// Hashes every tensor and the tokenizer against the manifest, and checks that gaps are zero.
    /// `progress` hears (bytes done, bytes in all) after each tensor.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), PackError> {
        let data = (*self.bytes).as_ref();
        let total = data.len() as u64;
        let mut end = HEADER_LEN as usize;
        for (entry, range) in self.manifest.tensors.iter().zip(self.tensors.iter()) {
            self.check_gap(&data[end..range.start])?;
            end = range.end;
            let got = blake3::hash(&data[range.clone()]);
            if got != entry.hash {
                return Err(PackError::TensorHash {
                    path: self.path.clone(),
                    name: entry.name.clone(),
                    want: hex::encode(entry.hash),
                    got: got.to_hex().to_string(),
                });
            }
            // Read once: who runs the model reads them again, who does not need not keep them.
            self.unmap(range);
            progress(end as u64, total);
        }
        self.check_gap(&data[end..self.tokenizer.start])?;
        let got = blake3::hash(self.tokenizer_bytes());
        if got != self.manifest.tokenizer.hash {
            return Err(PackError::TokenizerHash {
                path: self.path.clone(),
                want: hex::encode(self.manifest.tokenizer.hash),
                got: got.to_hex().to_string(),
            });
        }
        let manifest_at = data.len() - self.manifest.encode().len();
        self.check_gap(&data[self.tokenizer.end..manifest_at])?;
        progress(total, total);
        Ok(())
    }

    fn check_gap(&self, gap: &[u8]) -> Result<(), PackError> {
        if gap.iter().all(|b| *b == 0) {
            return Ok(());
        }
        Err(PackError::Malformed {
            path: self.path.clone(),
            why: "a gap between sections is not zero".into(),
        })
    }

    /// Refuses a pack that is another model than `root`.
    pub fn expect_root(&self, root: &Hash) -> Result<(), PackError> {
        if self.root == *root {
            return Ok(());
        }
        Err(PackError::Root {
            path: self.path.clone(),
            want: hex::encode(root),
            got: hex::encode(self.root),
        })
    }

    /// The model root.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// The leaves of the model root, for openings of single sites and tensors.
    pub fn leaves(&self) -> &RootLeaves {
        &self.leaves
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The program.
    pub fn program(&self) -> Arc<Program> {
        Arc::clone(&self.program)
    }

    /// Where the pack was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub fn byte_len(&self) -> u64 {
        (*self.bytes).as_ref().len() as u64
    }

    /// All tensors, indexed by id, without copying.
    pub fn tensors(&self) -> Vec<HostTensor> {
        self.manifest
            .tensors
            .iter()
            .zip(self.tensors.iter())
            .map(|(entry, range)| HostTensor {
                dtype: entry.dtype,
                // Both fit: `locate` checked the tensor's bytes against the file's length.
                rows: entry.rows as usize,
                cols: entry.cols as usize,
                bytes: Arc::new(Slice {
                    bytes: Arc::clone(&self.bytes),
                    range: range.clone(),
                }),
            })
            .collect()
    }

    /// Says that these tensors are not needed for now: of a mapped file their pages no longer count as this process's
    /// memory, and come back from the system's cache or the file when they are read again. Their bytes stay valid.
    pub fn release(&self, ids: &[TensorId]) {
        for range in ids.iter().filter_map(|id| self.tensors.get(*id as usize)) {
            self.unmap(range);
        }
    }

    #[cfg(unix)]
    fn unmap(&self, range: &Range<usize>) {
        let Some(map) = self.map.as_ref().filter(|_| !range.is_empty()) else {
            return;
        };
        // SAFETY: the map is shared, read-only and of a file that never changes in place (`Pack::open`), so a page that
        // is let go comes back with the bytes that it had, whoever holds a reference to them.
        #[allow(unsafe_code)]
        let advised = unsafe {
            map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
        };
        // Advice: where the system takes none, the pages stay until it wants them.
        drop(advised);
    }

    #[cfg(not(unix))]
    fn unmap(&self, _: &Range<usize>) {}

    /// The tokenizer section's bytes.
    pub fn tokenizer_bytes(&self) -> &[u8] {
        &(*self.bytes).as_ref()[self.tokenizer.clone()]
    }
}

fn check_magic(path: &Path, head: &[u8]) -> Result<(), PackError> {
    if head.len() >= MAGIC.len() && head.starts_with(MAGIC) {
        return Ok(());
    }
    // A short file that is so far a pack is a truncated one.
    if head.len() < MAGIC.len() && MAGIC.starts_with(head) {
        return Err(PackError::Truncated {
            path: path.to_owned(),
            have: head.len() as u64,
            want: HEADER_LEN,
        });
    }
    Err(PackError::WrongMagic {
        path: path.to_owned(),
        got: hex::encode(&head[..head.len().min(8)]),
    })
}

fn word<const N: usize>(data: &[u8], at: usize) -> [u8; N] {
    data[at..at + N].try_into().expect("the slice has N bytes")
}

fn read_header(path: &Path, data: &[u8]) -> Result<Header, PackError> {
    check_magic(path, &data[..data.len().min(8)])?;
    let have = data.len() as u64;
    let truncated = |want| PackError::Truncated {
        path: path.to_owned(),
        have,
        want,
    };
    let malformed = |why: &str| PackError::Malformed {
        path: path.to_owned(),
        why: why.into(),
    };
    if have < HEADER_LEN {
        return Err(truncated(HEADER_LEN));
    }
    let version = u32::from_le_bytes(word(data, 8));
    if version != PACK_VERSION {
        return Err(PackError::WrongVersion {
            path: path.to_owned(),
            got: version,
            want: PACK_VERSION,
        });
    }
    let header = Header {
        manifest_at: u64::from_le_bytes(word(data, 16)),
        manifest_len: u64::from_le_bytes(word(data, 24)),
        root: word(data, 32),
    };
    if header.encode() != data[..HEADER_LEN as usize] {
        return Err(malformed("reserved header bytes are not zero"));
    }
    let end = header
        .manifest_at
        .checked_add(header.manifest_len)
        .filter(|_| header.manifest_len <= MANIFEST_MAX && header.manifest_at >= HEADER_LEN)
        .ok_or_else(|| malformed("manifest offset or length out of range"))?;
    if have < end {
        return Err(truncated(end));
    }
    if have > end {
        return Err(malformed("bytes behind the manifest"));
    }
    Ok(header)
}

/// Offsets are not stored: sections follow one another at the next multiple of 64.
fn locate(manifest: &Manifest, manifest_at: u64) -> Result<(Vec<Range<usize>>, Range<usize>), String> {
    if manifest.info.tensor_count as usize != manifest.tensors.len() {
        return Err("info.tensor_count differs from the tensor table".into());
    }
    if manifest.info.site_count as usize != manifest.program.sites.len() {
        return Err("info.site_count differs from the program".into());
    }
    let mut end = HEADER_LEN;
    let mut section = |what: &str, len: Option<u64>| -> Result<Range<usize>, String> {
        let overflow = || format!("{what}: size overflows");
        let start = align_up(end).ok_or_else(overflow)?;
        end = start
            .checked_add(len.ok_or_else(overflow)?)
            .ok_or_else(overflow)?;
        if end > manifest_at {
            return Err(format!(
                "{what}: ends at {end}, inside the manifest at {manifest_at}"
            ));
        }
        Ok(usize::try_from(start).map_err(|_| overflow())?..usize::try_from(end).map_err(|_| overflow())?)
    };
    let tensors = manifest
        .tensors
        .iter()
        .map(|t| section(&t.name, t.len()))
        .collect::<Result<Vec<_>, _>>()?;
    let tokenizer = section("tokenizer", Some(manifest.tokenizer.len))?;
    if align_up(end) != Some(manifest_at) {
        return Err(format!(
            "sections end at {end}, the manifest starts at {manifest_at}"
        ));
    }
    Ok((tensors, tokenizer))
}
