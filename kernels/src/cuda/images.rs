//! The compiled kernels that this binary carries, and which of them a GPU runs.
//!
//! `kernels/cuda/bin/kernels.bin` is made by `scripts/cuda-kernels`: `bitai/cubins/v0` and a zero byte, then a u32 count,
//! then an entry each: u32 architecture (10 x major + minor, plus 1,000 where it runs on exactly that one), u32 kind (0 cubin,
//! 1 PTX), u32 offset and u32 length of its zlib stream from the start of the file. Little-endian.

use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;

const FILE: &[u8] = include_bytes!("../../cuda/bin/kernels.bin");
const MAGIC: &[u8; 16] = b"bitai/cubins/v0\0";
/// Most bytes that one image may unpack to.
const IMAGE_MAX: usize = 64 << 20;

/// One image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// 10 x major + minor.
    arch: u32,
    /// Runs on exactly this architecture.
    exact: bool,
    ptx: bool,
    offset: usize,
    len: usize,
}

fn entries(file: &[u8]) -> Result<Vec<Entry>, String> {
    let damaged = || "this binary's kernels are damaged; install it again".to_string();
    let rest = file.strip_prefix(MAGIC).ok_or_else(damaged)?;
    let (words, _) = rest.as_chunks::<4>();
    let count = words.first().map_or(0, |w| u32::from_le_bytes(*w)) as usize;
    let list = words.get(1..1 + 4 * count.min(64)).ok_or_else(damaged)?;
    list.chunks_exact(4)
        .map(|e| {
            let [arch, kind, offset, len] = [0, 1, 2, 3].map(|i| u32::from_le_bytes(e[i]));
            let entry = Entry {
                arch: arch % 1000,
                exact: arch >= 1000,
                ptx: kind == 1,
                offset: offset as usize,
                len: len as usize,
            };
            let end = entry.offset.checked_add(entry.len);
            end.filter(|end| *end <= file.len())
                .map(|_| entry)
                .ok_or_else(damaged)
        })
        .collect()
}

/// The best image for a GPU: its own cubin, else the newest older one of its generation, else PTX.
fn choose(entries: &[Entry], (major, minor): (u32, u32)) -> Option<Entry> {
    let arch = 10 * major + minor;
    let own = entries.iter().find(|e| !e.ptx && e.exact && e.arch == arch);
    let generation = entries
        .iter()
        .filter(|e| !e.ptx && !e.exact && e.arch / 10 == major && e.arch <= arch)
        .max_by_key(|e| e.arch);
    let ptx = entries.iter().find(|e| e.ptx && e.arch <= arch);
    own.or(generation).or(ptx).copied()
}

/// The image for a GPU of this compute capability, ready for `cuModuleLoadData`.
pub(crate) fn pick(capability: (u32, u32)) -> Result<Vec<u8>, String> {
    let entry = choose(&entries(FILE)?, capability).ok_or_else(|| {
        let (major, minor) = capability;
        format!("compute capability {major}.{minor} is too old; 7.5 (Turing) or newer is needed")
    })?;
    let packed = &FILE[entry.offset..entry.offset + entry.len];
    let mut image = decompress_to_vec_zlib_with_limit(packed, IMAGE_MAX)
        .map_err(|e| format!("this binary's kernels are damaged ({e}); install it again"))?;
    // PTX is text that has to end in a zero byte; a cubin knows its own length.
    image.push(0);
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Vec<Entry> {
        [
            (75, false, false),
            (80, false, false),
            (86, false, false),
            (89, false, false),
            (90, true, false),
            (100, true, false),
            (103, true, false),
            (120, false, false),
            (80, false, true),
        ]
        .into_iter()
        .map(|(arch, exact, ptx)| Entry {
            arch,
            exact,
            ptx,
            offset: 0,
            len: 0,
        })
        .collect()
    }

    #[test]
    fn every_gpu_gets_the_nearest_image() {
        let of = |major, minor| choose(&list(), (major, minor)).map(|e| (e.arch, e.ptx));
        assert_eq!(of(7, 5), Some((75, false)));
        assert_eq!(of(8, 0), Some((80, false)));
        assert_eq!(of(8, 7), Some((86, false)));
        assert_eq!(of(8, 9), Some((89, false)));
        assert_eq!(of(9, 0), Some((90, false)));
        assert_eq!(of(10, 3), Some((103, false)));
        assert_eq!(of(12, 1), Some((120, false)));
        assert_eq!(of(13, 0), Some((80, true)));
    }

    #[test]
    fn rejects_a_gpu_that_is_too_old() {
        assert_eq!(choose(&list(), (7, 0)), None);
        assert!(pick((6, 1)).unwrap_err().contains("7.5"));
    }

    #[test]
    fn what_is_committed_holds_an_image_for_every_generation() {
        for capability in [
            (7, 5),
            (8, 0),
            (8, 6),
            (8, 9),
            (9, 0),
            (10, 0),
            (10, 3),
            (12, 0),
            (14, 0),
        ] {
            let image = pick(capability).unwrap();
            assert!(
                image.starts_with(b"\x7fELF") || image.starts_with(b"//"),
                "{capability:?}"
            );
        }
    }

    #[test]
    fn rejects_a_damaged_list() {
        assert!(entries(b"nonsense").is_err());
        let mut file = MAGIC.to_vec();
        file.extend(2u32.to_le_bytes());
        assert!(entries(&file).is_err());
        file.truncate(16);
        for word in [1u32, 75, 0, u32::MAX, 2] {
            file.extend(word.to_le_bytes());
        }
        assert!(entries(&file).is_err());
    }
}
