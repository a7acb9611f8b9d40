//! Files out of a ZIP archive, piece by piece (PKWARE's APPNOTE 6.3, sections 4.3.7 to 4.3.16; no ZIP64, no encryption).

use std::{
    fs::{self, File},
    io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::Path,
};

use miniz_oxide::{
    DataFormat, MZError, MZFlush, MZStatus,
    inflate::stream::{InflateState, inflate},
};

use crate::exit::Failure;

/// Bytes from the end within which the directory's end record lies: itself and its longest comment.
const END_REACH: u64 = 22 + 65_535;
/// Bytes at a time.
const PIECE: usize = 1 << 18;

/// A file in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    name: String,
    method: u16,
    packed: u64,
    bytes: u64,
    at: u64,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The central directory's place and size, from the bytes at an archive's end.
fn directory(tail: &[u8]) -> Option<(u64, u64)> {
    let at = (0..tail.len().saturating_sub(21))
        .rev()
        .find(|at| tail[*at..].starts_with(b"PK\x05\x06"))?;
    Some((
        u64::from(u32_at(tail, at + 16)?),
        u64::from(u32_at(tail, at + 12)?),
    ))
}

/// The members that a central directory lists.
fn members(bytes: &[u8]) -> Option<Vec<Member>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        if !bytes[at..].starts_with(b"PK\x01\x02") {
            return None;
        }
        let lengths = [28, 30, 32].map(|o| u16_at(bytes, at + o).map(usize::from));
        let [Some(name), Some(extra), Some(comment)] = lengths else {
            return None;
        };
        let encrypted = u16_at(bytes, at + 8)? & 1 != 0;
        found.push(Member {
            name: String::from_utf8_lossy(bytes.get(at + 46..at + 46 + name)?).into_owned(),
            method: if encrypted {
                u16::MAX
            } else {
                u16_at(bytes, at + 10)?
            },
            packed: u64::from(u32_at(bytes, at + 20)?),
            bytes: u64::from(u32_at(bytes, at + 24)?),
            at: u64::from(u32_at(bytes, at + 42)?),
        });
        at += 46 + name + extra + comment;
    }
    Some(found)
}

/// Unpacks a file of an archive to `target`, or, where `wanted` ends in `/`, every file directly in that folder.
pub(super) fn unpack(archive: &Path, wanted: &str, target: &Path) -> Result<(), Failure> {
    let bad = |why: &str| Failure::ModelFile {
        path: archive.into(),
        why: format!("{why}; remove it, and pull again"),
    };
    let io = |e| Failure::disk(archive, e);
    let mut file = File::open(archive).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(len.saturating_sub(END_REACH)))
        .map_err(io)?;
    file.read_to_end(&mut tail).map_err(io)?;
    let (at, size) = directory(&tail)
        .filter(|(at, size)| at + size <= len)
        .ok_or_else(|| bad("it is no ZIP archive"))?;
    let mut list = vec![0; usize::try_from(size).map_err(|_| bad("its directory is too large"))?];
    file.seek(SeekFrom::Start(at)).map_err(io)?;
    file.read_exact(&mut list).map_err(io)?;
    let all = members(&list).ok_or_else(|| bad("its directory is damaged"))?;
    let mut found = false;
    for member in &all {
        let to = match member.name.strip_prefix(wanted) {
            Some("") => target.to_owned(),
            Some(inner)
                if wanted.ends_with('/') && !inner.contains(['/', '\\']) && !inner.starts_with('.') =>
            {
                fs::create_dir_all(target).map_err(|e| Failure::disk(target, e))?;
                target.join(inner)
            }
            _ => continue,
        };
        found = true;
        extract(&mut file, member, &to).map_err(|e| match e {
            Extract::Read(why) => bad(&format!("{}: {why}", member.name)),
            Extract::Write(e) => Failure::disk(&to, e),
        })?;
    }
    if found {
        Ok(())
    } else {
        Err(bad(&format!("it holds no {wanted}")))
    }
}

enum Extract {
    Read(String),
    Write(std::io::Error),
}

fn extract(file: &mut File, member: &Member, target: &Path) -> Result<(), Extract> {
    let read = |e: std::io::Error| Extract::Read(e.to_string());
    let mut head = [0; 30];
    file.seek(SeekFrom::Start(member.at)).map_err(read)?;
    file.read_exact(&mut head).map_err(read)?;
    // Its own name and extra field may differ in length from the directory's.
    let (Some(name), Some(extra), true) = (
        u16_at(&head, 26),
        u16_at(&head, 28),
        head.starts_with(b"PK\x03\x04"),
    ) else {
        return Err(Extract::Read("its header is damaged".into()));
    };
    file.seek(SeekFrom::Current(i64::from(name) + i64::from(extra)))
        .map_err(read)?;
    let mut packed = BufReader::with_capacity(PIECE, file.take(member.packed));
    let mut out = BufWriter::with_capacity(PIECE, File::create(target).map_err(Extract::Write)?);
    let written = match member.method {
        0 => copy(&mut packed, &mut out)?,
        8 => inflated(&mut packed, &mut out, member.bytes)?,
        other => {
            return Err(Extract::Read(format!(
                "packed by method {other}, which is not read here"
            )));
        }
    };
    out.flush().map_err(Extract::Write)?;
    if written != member.bytes {
        return Err(Extract::Read(format!(
            "{written} bytes, it should have {}",
            member.bytes
        )));
    }
    Ok(())
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<u64, Extract> {
    let (mut piece, mut all) = (vec![0; PIECE], 0);
    loop {
        match from.read(&mut piece).map_err(|e| Extract::Read(e.to_string()))? {
            0 => return Ok(all),
            n => {
                to.write_all(&piece[..n]).map_err(Extract::Write)?;
                all += n as u64;
            }
        }
    }
}

/// Unpacks DEFLATE; more than `limit` bytes are an error, so that a small archive cannot fill the disk.
fn inflated(from: &mut impl Read, to: &mut impl Write, limit: u64) -> Result<u64, Extract> {
    let mut state = InflateState::new_boxed(DataFormat::Raw);
    let (mut piece, mut out) = (vec![0; PIECE], vec![0; PIECE]);
    let (mut begin, mut end, mut all) = (0, 0, 0u64);
    loop {
        if begin == end {
            begin = 0;
            end = from.read(&mut piece).map_err(|e| Extract::Read(e.to_string()))?;
        }
        let is_last = end == 0;
        let result = inflate(&mut state, &piece[begin..end], &mut out, MZFlush::None);
        begin += result.bytes_consumed;
        all += result.bytes_written as u64;
        if all > limit {
            return Err(Extract::Read(format!(
                "it unpacks to more than the {limit} bytes that it says"
            )));
        }
        to.write_all(&out[..result.bytes_written])
            .map_err(Extract::Write)?;
        match result.status {
            Ok(MZStatus::StreamEnd) => return Ok(all),
            Ok(_) | Err(MZError::Buf) if !is_last || result.bytes_written > 0 => {}
            Ok(_) | Err(MZError::Buf) => return Err(Extract::Read("it breaks off".into())),
            Err(e) => return Err(Extract::Read(format!("it cannot be unpacked: {e:?}"))),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An archive of members as (name, bytes), each deflated where `deflate` says so.
    pub(in crate::fetch) fn archive(members: &[(&str, &[u8])], deflate: bool) -> Vec<u8> {
        let (mut out, mut list) = (Vec::new(), Vec::new());
        for (name, bytes) in members {
            let packed = if deflate {
                miniz_oxide::deflate::compress_to_vec(bytes, 6)
            } else {
                bytes.to_vec()
            };
            let method: u16 = if deflate { 8 } else { 0 };
            let at = out.len() as u32;
            let mut middle = Vec::new();
            middle.extend([20, 0, 0, 0]);
            middle.extend(method.to_le_bytes());
            middle.extend([0; 8]);
            middle.extend((packed.len() as u32).to_le_bytes());
            middle.extend((bytes.len() as u32).to_le_bytes());
            middle.extend((name.len() as u16).to_le_bytes());
            middle.extend([0; 2]);
            out.extend(b"PK\x03\x04");
            out.extend(&middle);
            out.extend(name.as_bytes());
            out.extend(&packed);
            list.extend(b"PK\x01\x02\x14\x00");
            list.extend(&middle);
            list.extend([0; 10]);
            list.extend(at.to_le_bytes());
            list.extend(name.as_bytes());
        }
        let at = out.len() as u32;
        out.extend(&list);
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend(
            [
                (members.len() as u16).to_le_bytes(),
                (members.len() as u16).to_le_bytes(),
            ]
            .concat(),
        );
        out.extend((list.len() as u32).to_le_bytes());
        out.extend(at.to_le_bytes());
        out.extend([0, 0]);
        out
    }

    #[test]
    fn a_file_and_a_folder_come_out_as_they_went_in() {
        let large: Vec<u8> = (0..700_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        let dir = tempfile::tempdir().unwrap();
        for deflate in [false, true] {
            let zip = dir.path().join("a.whl");
            let members: [(&str, &[u8]); 4] = [
                ("p/m.gguf", &large),
                ("p/f/a", b"1"),
                ("p/f/b", b""),
                ("p/f/../c", b"x"),
            ];
            fs::write(&zip, archive(&members, deflate)).unwrap();
            let (file, folder) = (dir.path().join("m"), dir.path().join("f"));
            unpack(&zip, "p/m.gguf", &file).unwrap();
            assert_eq!(fs::read(&file).unwrap(), large);
            unpack(&zip, "p/f/", &folder).unwrap();
            assert_eq!(fs::read(folder.join("a")).unwrap(), b"1");
            // What would leave the folder does not come out.
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
            assert_eq!(unpack(&zip, "q", &file).unwrap_err().code(), 10);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn damaged_archives_are_refused_or_read_but_never_a_panic(at in 0usize..400, byte: u8, cut in 0usize..400) {
            let dir = tempfile::tempdir().unwrap();
            let mut bytes = archive(&[("p/m", &[7; 300]), ("p/n", b"second")], true);
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(bytes.len() - cut % bytes.len());
            let zip = dir.path().join("a.whl");
            fs::write(&zip, bytes).unwrap();
            let _ = unpack(&zip, "p/m", &dir.path().join("m"));
        }
    }
}
