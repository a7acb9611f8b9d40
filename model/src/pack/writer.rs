//! Writes a pack as a stream: tensors in id order, then tokenizer, manifest and, last, the header. A file
//! appears under its name only when it is whole (temporary file, fsync, rename).

use std::{
    fs::{self, File},
    io::{BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use bitai_kernels::{DType, Hash, Program};

use super::{
    ALIGN, HEADER_LEN, Header, PackError, align_up,
    manifest::{Info, Manifest, TensorEntry, TokenizerEntry},
    root::RootLeaves,
};

/// A pack under construction over any seekable sink.
pub struct PackWriter<W: Write + Seek> {
    sink: W,
    pos: u64,
    entries: Vec<TensorEntry>,
    path: PathBuf,
}

/// A tensor under construction: canonical bytes go in row by row or slab by slab.
pub struct TensorWriter<'w, W: Write + Seek> {
    pack: &'w mut PackWriter<W>,
    entry: TensorEntry,
    hasher: blake3::Hasher,
    left: u64,
}

impl<W: Write + Seek> PackWriter<W> {
    /// Starts a pack at the sink's beginning; `path` is for error messages.
    pub fn new(mut sink: W, path: &Path) -> Result<Self, PackError> {
        sink.write_all(&[0; HEADER_LEN as usize])
            .map_err(PackError::io(path))?;
        Ok(Self {
            sink,
            pos: HEADER_LEN,
            entries: Vec::new(),
            path: path.to_owned(),
        })
    }

    /// Tensors finished so far: the next one's id.
    pub fn next_id(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.sink.write_all(bytes).map_err(PackError::io(&self.path))?;
        self.pos += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self) -> Result<(), PackError> {
        let gap = align_up(self.pos).unwrap_or(self.pos) - self.pos;
        self.put(&[0; ALIGN as usize][..usize::try_from(gap).unwrap_or(0)])
    }

    /// Starts the next tensor.
    pub fn tensor(
        &mut self,
        name: &str,
        dtype: DType,
        rows: usize,
        cols: usize,
    ) -> Result<TensorWriter<'_, W>, PackError> {
        self.pad()?;
        let entry = TensorEntry {
            name: name.to_owned(),
            dtype,
            rows: rows as u64,
            cols: cols as u64,
            hash: [0; 32],
        };
        let left = entry
            .len()
            .ok_or_else(|| self.malformed(format!("tensor {name}: size overflows")))?;
        Ok(TensorWriter {
            pack: self,
            entry,
            hasher: blake3::Hasher::new(),
            left,
        })
    }

    fn malformed(&self, why: String) -> PackError {
        PackError::Malformed {
            path: self.path.clone(),
            why,
        }
    }

    /// A whole tensor at once.
    pub fn whole(
        &mut self,
        name: &str,
        dtype: DType,
        rows: usize,
        cols: usize,
        bytes: &[u8],
    ) -> Result<u32, PackError> {
        let mut t = self.tensor(name, dtype, rows, cols)?;
        t.write(bytes)?;
        t.finish()
    }

    /// Writes tokenizer, manifest and header; gives the sink, at its end, and the model root. The counts in
    /// `info` are filled in here.
    pub fn finish(
        mut self,
        mut info: Info,
        program: Program,
        tokenizer: &[u8],
    ) -> Result<(W, Hash), PackError> {
        self.pad()?;
        self.put(tokenizer)?;
        self.pad()?;
        info.tensor_count = self.next_id();
        info.site_count = u32::try_from(program.sites.len()).unwrap_or(u32::MAX);
        let manifest = Manifest {
            info,
            program,
            tensors: std::mem::take(&mut self.entries),
            tokenizer: TokenizerEntry {
                len: tokenizer.len() as u64,
                hash: *blake3::hash(tokenizer).as_bytes(),
            },
        };
        let leaves = RootLeaves::of(&manifest).map_err(|source| PackError::Program {
            path: self.path.clone(),
            source,
        })?;
        let root = leaves.root();
        let bytes = manifest.encode();
        let manifest_at = self.pos;
        self.put(&bytes)?;
        let header = Header {
            manifest_at,
            manifest_len: bytes.len() as u64,
            root,
        };
        let end = self.pos;
        let sink = &mut self.sink;
        let write = |sink: &mut W| {
            sink.seek(SeekFrom::Start(0))?;
            sink.write_all(&header.encode())?;
            sink.seek(SeekFrom::Start(end))?;
            sink.flush()
        };
        write(sink).map_err(PackError::io(&self.path))?;
        Ok((self.sink, root))
    }
}

impl<W: Write + Seek> TensorWriter<'_, W> {
    /// Appends canonical bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            return Err(self.pack.malformed(format!(
                "tensor {}: more bytes than its shape holds",
                self.entry.name
            )));
        };
        self.left = left;
        self.hasher.update(bytes);
        self.pack.put(bytes)
    }

    /// Ends the tensor and gives its id.
    pub fn finish(mut self) -> Result<u32, PackError> {
        if self.left != 0 {
            return Err(self.pack.malformed(format!(
                "tensor {}: {} bytes are missing",
                self.entry.name, self.left
            )));
        }
        self.entry.hash = *self.hasher.finalize().as_bytes();
        let id = self.pack.next_id();
        self.pack.entries.push(self.entry);
        Ok(id)
    }
}

/// A pack file under construction; dropped unfinished, it leaves nothing behind.
pub struct PackFile {
    temp: PathBuf,
    target: PathBuf,
    done: bool,
}

impl PackFile {
    /// Opens a temporary file beside `target` (in the same folder, so that the rename is atomic).
    pub fn create(target: &Path) -> Result<(Self, PackWriter<BufWriter<File>>), PackError> {
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}.partial", std::process::id()));
        let temp = target.with_file_name(name);
        let file = File::create(&temp).map_err(PackError::io(&temp))?;
        let guard = Self {
            temp,
            target: target.to_owned(),
            done: false,
        };
        let writer = PackWriter::new(BufWriter::with_capacity(1 << 20, file), &guard.temp)?;
        Ok((guard, writer))
    }

    /// Makes the finished file durable and gives it its name.
    pub fn commit(mut self, sink: BufWriter<File>) -> Result<(), PackError> {
        let file = sink
            .into_inner()
            .map_err(|e| PackError::io(&self.temp)(e.into_error()))?;
        file.sync_all().map_err(PackError::io(&self.temp))?;
        fs::rename(&self.temp, &self.target).map_err(PackError::io(&self.target))?;
        self.done = true;
        // The rename itself must survive a power cut; a folder that cannot be opened is no reason to fail.
        if let Some(Ok(dir)) = self.target.parent().map(|p| {
            File::open(if p.as_os_str().is_empty() {
                Path::new(".")
            } else {
                p
            })
        }) {
            let _ = dir.sync_all();
        }
        Ok(())
    }
}

impl Drop for PackFile {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.temp);
        }
    }
}
