//! Bytes of an accusation: the id that it rests on, its kind, then its fields in the order of `msg.rs`.

use bitai_kernels::Hash;

use super::{CodecError, Reader, Wire, Writer};
use crate::dispute::{
    keys::KvSide,
    leaf_model::ModelFault,
    msg::{Accusation, DrawFault},
};

impl Wire for KvSide {
    fn put(&self, w: &mut Writer) {
        w.u8(match self {
            KvSide::K => 0,
            KvSide::V => 1,
        });
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        match r.u8("which unit")? {
            0 => Ok(KvSide::K),
            1 => Ok(KvSide::V),
            got => Err(CodecError::Kind {
                what: "a unit",
                got: got.into(),
            }),
        }
    }
}

impl Wire for DrawFault {
    fn put(&self, w: &mut Writer) {
        w.u8(match self {
            DrawFault::MaxNotAttained => 0,
            DrawFault::MaxExceeded => 1,
            DrawFault::Threshold => 2,
            DrawFault::Sampled => 3,
        });
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match r.u8("which number of a draw")? {
            0 => DrawFault::MaxNotAttained,
            1 => DrawFault::MaxExceeded,
            2 => DrawFault::Threshold,
            3 => DrawFault::Sampled,
            got => {
                return Err(CodecError::Kind {
                    what: "a number of a draw",
                    got: got.into(),
                });
            }
        })
    }
}

impl Accusation {
    /// Its number on the wire.
    pub const fn kind(&self) -> u8 {
        match self {
            Accusation::LinearPart { .. } => 0,
            Accusation::LinearFinish { .. } => 1,
            Accusation::Key { .. } => 2,
            Accusation::MaxNotAttained { .. } => 3,
            Accusation::MaxExceeded { .. } => 4,
            Accusation::UnitNotAttained { .. } => 5,
            Accusation::UnitExceeded { .. } => 6,
            Accusation::AbsMaxNotAttained { .. } => 7,
            Accusation::AbsMaxExceeded { .. } => 8,
            Accusation::GroupScale { .. } => 9,
            Accusation::QuantElement { .. } => 10,
            Accusation::GreedyExceeded { .. } => 11,
            Accusation::DrawHead { .. } => 12,
            Accusation::DrawIds { .. } => 13,
            Accusation::Embed { .. } => 14,
            Accusation::Out { .. } => 15,
            Accusation::Model(ModelFault::Shape { .. }) => 16,
            Accusation::Model(ModelFault::Row { .. }) => 17,
            Accusation::NormSum { .. } => 18,
            Accusation::NormMax { .. } => 19,
            Accusation::NormSquares { .. } => 20,
            Accusation::NormElement { .. } => 21,
            Accusation::Elementwise { .. } => 22,
            Accusation::Rope { .. } => 23,
            Accusation::Record { .. } => 24,
        }
    }

    /// Its kind's name, as `docs/spec/poc.md` lists it: stable, for reports and logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Accusation::LinearPart { .. } => "LinearPart",
            Accusation::LinearFinish { .. } => "LinearFinish",
            Accusation::Key { .. } => "Key",
            Accusation::MaxNotAttained { .. } => "MaxNotAttained",
            Accusation::MaxExceeded { .. } => "MaxExceeded",
            Accusation::UnitNotAttained { .. } => "UnitNotAttained",
            Accusation::UnitExceeded { .. } => "UnitExceeded",
            Accusation::AbsMaxNotAttained { .. } => "AbsMaxNotAttained",
            Accusation::AbsMaxExceeded { .. } => "AbsMaxExceeded",
            Accusation::GroupScale { .. } => "GroupScale",
            Accusation::QuantElement { .. } => "QuantElement",
            Accusation::GreedyExceeded { .. } => "GreedyExceeded",
            Accusation::DrawHead { .. } => "DrawHead",
            Accusation::DrawIds { .. } => "DrawIds",
            Accusation::Embed { .. } => "Embed",
            Accusation::Out { .. } => "Out",
            Accusation::Model(_) => "Model",
            Accusation::NormSum { .. } => "NormSum",
            Accusation::NormMax { .. } => "NormMax",
            Accusation::NormSquares { .. } => "NormSquares",
            Accusation::NormElement { .. } => "NormElement",
            Accusation::Elementwise { .. } => "Elementwise",
            Accusation::Rope { .. } => "Rope",
            Accusation::Record { .. } => "Record",
        }
    }

    fn put(&self, w: &mut Writer) {
        w.u8(self.kind());
        match self {
            Accusation::LinearPart { at, part, x, w: ws } => {
                at.put(w);
                w.u32(*part);
                x.put(w);
                ws.put(w);
            }
            Accusation::LinearFinish {
                at,
                x_scales,
                w_scale,
                bias,
            } => {
                at.put(w);
                x_scales.put(w);
                w_scale.put(w);
                w.option(bias.as_ref());
            }
            Accusation::Key { at, key }
            | Accusation::MaxNotAttained { at, key }
            | Accusation::MaxExceeded { at, key } => {
                at.put(w);
                key.put(w);
            }
            Accusation::UnitNotAttained { at, side, key } | Accusation::UnitExceeded { at, side, key } => {
                at.put(w);
                side.put(w);
                key.put(w);
            }
            Accusation::AbsMaxNotAttained { at, raw, block }
            | Accusation::AbsMaxExceeded { at, raw, block } => {
                at.put(w);
                w.u8(u8::from(*raw));
                block.put(w);
            }
            Accusation::GroupScale { at } => at.put(w),
            Accusation::QuantElement { at, block } => {
                at.put(w);
                block.put(w);
            }
            Accusation::GreedyExceeded {
                pos,
                id,
                sampled,
                better,
            } => {
                w.u32(*pos);
                w.u32(*id);
                sampled.put(w);
                better.put(w);
            }
            Accusation::DrawHead { pos, what, id, logit } => {
                w.u32(*pos);
                what.put(w);
                w.u32(*id);
                logit.put(w);
            }
            Accusation::DrawIds {
                pos,
                part,
                sub,
                logits,
            } => {
                w.u32(*pos);
                w.u32(*part);
                w.u32(*sub);
                logits.put(w);
            }
            Accusation::Embed {
                at,
                id,
                w: ws,
                w_scale,
            } => {
                at.put(w);
                w.option(id.as_ref());
                ws.put(w);
                w_scale.put(w);
            }
            Accusation::Out { pos, site, input } => {
                w.u32(*pos);
                w.u32(*site);
                input.put(w);
            }
            Accusation::NormSum { at, part, x } | Accusation::NormSquares { at, part, x } => {
                at.put(w);
                w.u32(*part);
                x.put(w);
            }
            Accusation::NormMax { at, exceeded, x } => {
                at.put(w);
                w.u8(u8::from(*exceeded));
                x.put(w);
            }
            Accusation::NormElement { at, x, gain, bias } => {
                at.put(w);
                x.put(w);
                gain.put(w);
                w.option(bias.as_ref());
            }
            Accusation::Elementwise { at, x, y } => {
                at.put(w);
                x.put(w);
                w.option(y.as_ref());
            }
            Accusation::Rope { at, pair, table } => {
                at.put(w);
                pair.put(w);
                table.put(w);
            }
            Accusation::Record { at, k, v } => {
                at.put(w);
                k.put(w);
                v.put(w);
            }
            Accusation::Model(ModelFault::Shape { site, id, line }) => {
                w.u32(*site);
                w.u32(*id);
                line.put(w);
            }
            Accusation::Model(ModelFault::Row { site, row, w: ws }) => {
                w.u32(*site);
                w.u32(*row);
                ws.put(w);
            }
        }
    }

    /// Bytes on the wire, with the 32 that name what it rests on.
    pub fn size(&self) -> usize {
        let mut w = Writer::default();
        self.put(&mut w);
        32 + w.len()
    }

    /// Its bytes: the id of the answer (or claim) that it rests on, the kind, the fields.
    pub fn encode(&self, to: &Hash) -> Result<Vec<u8>, CodecError> {
        let mut w = Writer::default();
        w.raw(to);
        self.put(&mut w);
        w.done()
    }

    /// What it rests on, and the accusation.
    pub fn decode(bytes: &[u8]) -> Result<(Hash, Self), CodecError> {
        let mut r = Reader::new(bytes);
        let to = r.hash("what the accusation rests on")?;
        let accusation = Self::get(&mut r)?;
        r.end()?;
        Ok((to, accusation))
    }

    fn get(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match r.u8("an accusation's kind")? {
            0 => Accusation::LinearPart {
                at: Wire::get(r)?,
                part: r.u32("a part")?,
                x: Wire::get(r)?,
                w: Wire::get(r)?,
            },
            1 => Accusation::LinearFinish {
                at: Wire::get(r)?,
                x_scales: Wire::get(r)?,
                w_scale: Wire::get(r)?,
                bias: r.option("a bias")?,
            },
            2 => Accusation::Key {
                at: Wire::get(r)?,
                key: Box::new(Wire::get(r)?),
            },
            3 => Accusation::MaxNotAttained {
                at: Wire::get(r)?,
                key: Box::new(Wire::get(r)?),
            },
            4 => Accusation::MaxExceeded {
                at: Wire::get(r)?,
                key: Box::new(Wire::get(r)?),
            },
            5 => Accusation::UnitNotAttained {
                at: Wire::get(r)?,
                side: Wire::get(r)?,
                key: Box::new(Wire::get(r)?),
            },
            6 => Accusation::UnitExceeded {
                at: Wire::get(r)?,
                side: Wire::get(r)?,
                key: Box::new(Wire::get(r)?),
            },
            7 => Accusation::AbsMaxNotAttained {
                at: Wire::get(r)?,
                raw: r.flag("before the transform")?,
                block: Wire::get(r)?,
            },
            8 => Accusation::AbsMaxExceeded {
                at: Wire::get(r)?,
                raw: r.flag("before the transform")?,
                block: Wire::get(r)?,
            },
            9 => Accusation::GroupScale { at: Wire::get(r)? },
            10 => Accusation::QuantElement {
                at: Wire::get(r)?,
                block: Wire::get(r)?,
            },
            11 => Accusation::GreedyExceeded {
                pos: r.u32("a position")?,
                id: r.u32("an id")?,
                sampled: Wire::get(r)?,
                better: Wire::get(r)?,
            },
            12 => Accusation::DrawHead {
                pos: r.u32("a position")?,
                what: Wire::get(r)?,
                id: r.u32("an id")?,
                logit: Wire::get(r)?,
            },
            13 => Accusation::DrawIds {
                pos: r.u32("a position")?,
                part: r.u32("a part")?,
                sub: r.u32("a part of the part")?,
                logits: Wire::get(r)?,
            },
            14 => Accusation::Embed {
                at: Wire::get(r)?,
                id: r.option("an id of the prompt")?,
                w: Wire::get(r)?,
                w_scale: Wire::get(r)?,
            },
            15 => Accusation::Out {
                pos: r.u32("a position")?,
                site: r.u32("a site")?,
                input: Wire::get(r)?,
            },
            16 => Accusation::Model(ModelFault::Shape {
                site: r.u32("a site")?,
                id: r.u32("a tensor")?,
                line: Wire::get(r)?,
            }),
            17 => Accusation::Model(ModelFault::Row {
                site: r.u32("a site")?,
                row: r.u32("a row")?,
                w: Wire::get(r)?,
            }),
            18 => Accusation::NormSum {
                at: Wire::get(r)?,
                part: r.u32("a part")?,
                x: Wire::get(r)?,
            },
            19 => Accusation::NormMax {
                at: Wire::get(r)?,
                exceeded: r.flag("whether the maximum is exceeded")?,
                x: Wire::get(r)?,
            },
            20 => Accusation::NormSquares {
                at: Wire::get(r)?,
                part: r.u32("a part")?,
                x: Wire::get(r)?,
            },
            21 => Accusation::NormElement {
                at: Wire::get(r)?,
                x: Wire::get(r)?,
                gain: Wire::get(r)?,
                bias: r.option("a bias")?,
            },
            22 => Accusation::Elementwise {
                at: Wire::get(r)?,
                x: Wire::get(r)?,
                y: r.option("an element of the other input")?,
            },
            23 => Accusation::Rope {
                at: Wire::get(r)?,
                pair: Wire::get(r)?,
                table: Wire::get(r)?,
            },
            24 => Accusation::Record {
                at: Wire::get(r)?,
                k: Box::new(Wire::get(r)?),
                v: Box::new(Wire::get(r)?),
            },
            got => {
                return Err(CodecError::Kind {
                    what: "an accusation",
                    got: got.into(),
                });
            }
        })
    }
}
