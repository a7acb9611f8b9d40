//! Bytes of openings: counts in front of lists, one byte in front of what may be absent.

use bitai_kernels::{DType, Hash};

use super::{CodecError, Reader, Wire, Writer};
use crate::{
    dispute::msg::{At, CommitOpening, HeadOpening, InputOpening, KeyOpening},
    merkle::MerkleProof,
    model_root::{LineOpening, TensorLine, TensorOpening, WeightOpening},
    opening::{KvOpening, LayerOpening, LayerRows, RangeOpening, TokenNode, TokenOpening},
    slice::SliceProof,
};

/// Hashes behind an 8-bit count: a path has at most 48.
fn put_path(w: &mut Writer, path: &[Hash]) {
    match u8::try_from(path.len()) {
        Ok(n) => w.u8(n),
        Err(_) => w.too_long("a path", path.len()),
    }
    path.iter().for_each(|h| w.raw(h));
}

fn get_path(r: &mut Reader<'_>) -> Result<Vec<Hash>, CodecError> {
    let n = r.u8("the length of a path")?;
    (0..n).map(|_| r.hash("a path")).collect()
}

impl Writer {
    fn too_long(&mut self, what: &'static str, len: usize) {
        self.too_long = Some(CodecError::TooLong { what, len });
    }
}

impl Wire for MerkleProof {
    fn put(&self, w: &mut Writer) {
        put_path(w, &self.0);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        get_path(r).map(Self)
    }
}

impl Wire for SliceProof {
    fn put(&self, w: &mut Writer) {
        w.count("a piece", self.bytes.len());
        w.raw(&self.bytes);
        put_path(w, &self.siblings);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let len = r.u16("the length of a piece")?;
        let bytes = r.take("a piece", len.into())?.to_vec();
        let siblings = get_path(r)?;
        Ok(Self { bytes, siblings })
    }
}

impl Wire for RangeOpening {
    fn put(&self, w: &mut Writer) {
        w.count("chunks", self.0.len());
        self.0.iter().for_each(|s| s.put(w));
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        r.list("chunks").map(Self)
    }
}

impl Wire for CommitOpening {
    fn put(&self, w: &mut Writer) {
        self.commit.put(w);
        w.option(self.proof.as_ref());
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            commit: Wire::get(r)?,
            proof: r.option("the path of a commitment")?,
        })
    }
}

impl Wire for InputOpening {
    fn put(&self, w: &mut Writer) {
        self.site.put(w);
        self.range.put(w);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            site: Wire::get(r)?,
            range: Wire::get(r)?,
        })
    }
}

impl Wire for HeadOpening {
    fn put(&self, w: &mut Writer) {
        self.data.put(w);
        self.scale.put(w);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            data: Wire::get(r)?,
            scale: Wire::get(r)?,
        })
    }
}

impl Wire for TensorLine {
    fn put(&self, w: &mut Writer) {
        w.raw(&self.hash);
        w.u8(match self.dtype {
            DType::I8 => 0,
            DType::U8 => 1,
            DType::I16 => 2,
            DType::I32 => 3,
            DType::Scale => 4,
        });
        w.u64(self.rows);
        w.u64(self.cols);
        w.count("a tensor's name", self.name.len());
        w.raw(self.name.as_bytes());
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let hash = r.hash("a tensor's hash")?;
        let dtype = match r.u8("a tensor's type")? {
            0 => DType::I8,
            1 => DType::U8,
            2 => DType::I16,
            3 => DType::I32,
            4 => DType::Scale,
            got => {
                return Err(CodecError::Kind {
                    what: "a tensor's elements",
                    got: got.into(),
                });
            }
        };
        let rows = r.u64("a tensor's rows")?;
        let cols = r.u64("a tensor's columns")?;
        let len = r.u16("the length of a tensor's name")?;
        let name = r.take("a tensor's name", len.into())?.to_vec();
        let name = String::from_utf8(name).map_err(|_| CodecError::Name)?;
        Ok(Self {
            name,
            dtype,
            rows,
            cols,
            hash,
        })
    }
}

impl Wire for LineOpening {
    fn put(&self, w: &mut Writer) {
        self.line.put(w);
        self.proof.put(w);
        self.branch.put(w);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            line: Wire::get(r)?,
            proof: Wire::get(r)?,
            branch: Wire::get(r)?,
        })
    }
}

impl Wire for TensorOpening {
    fn put(&self, w: &mut Writer) {
        self.at.put(w);
        self.range.put(w);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            at: Wire::get(r)?,
            range: Wire::get(r)?,
        })
    }
}

impl Wire for WeightOpening {
    fn put(&self, w: &mut Writer) {
        self.q.put(w);
        w.option(self.mult.as_ref());
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            q: Wire::get(r)?,
            mult: r.option("multipliers")?,
        })
    }
}

impl Wire for KvOpening {
    fn put(&self, w: &mut Writer) {
        self.token.node.put(w);
        self.token.proof.put(w);
        self.layer.rows.put(w);
        self.layer.proof.put(w);
        self.range.put(w);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            token: TokenOpening {
                node: TokenNode::get(r)?,
                proof: Wire::get(r)?,
            },
            layer: LayerOpening {
                rows: LayerRows::get(r)?,
                proof: Wire::get(r)?,
            },
            range: Wire::get(r)?,
        })
    }
}

impl Wire for KeyOpening {
    fn put(&self, w: &mut Writer) {
        w.u32(self.key);
        self.kv.put(w);
        self.q.put(w);
        self.q_scale.put(w);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            key: r.u32("a key's position")?,
            kv: Wire::get(r)?,
            q: Wire::get(r)?,
            q_scale: Wire::get(r)?,
        })
    }
}

impl Wire for At {
    fn put(&self, w: &mut Writer) {
        w.u32(self.pos);
        w.u32(self.site);
        w.u32(self.element);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            pos: r.u32("a position")?,
            site: r.u32("a site")?,
            element: r.u32("an element")?,
        })
    }
}
