//! Vectors of TENSOR_STEP (`docs/spec/poc.md`, section 9): inputs of every kind, from what an honest run holds to
//! what only an attacker writes, each with its output; and inputs that are no step.

use bitai_kernels::{
    conformance::build::Rng,
    num::Scale,
    step::{Kind, execute},
};
use serde_json::Value;

use crate::{
    File,
    arithmetic::{EDGES, SCALES, scale},
    step_ends::{draws, more_draws, round_scales},
};

/// Where the values of an input come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// As a run of a model holds them.
    Typical,
    /// The ends of their ranges.
    Edge,
    /// Any bytes.
    Hostile,
}

/// An input under construction.
struct Input<'a> {
    rng: &'a mut Rng,
    mood: Mood,
    bytes: Vec<u8>,
}

impl Input<'_> {
    fn put(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.bytes.extend(bytes.as_ref());
        self
    }

    fn u8(&mut self, x: usize) -> &mut Self {
        self.put([x as u8])
    }

    fn u16(&mut self, x: usize) -> &mut Self {
        self.put((x as u16).to_le_bytes())
    }

    fn u32(&mut self, x: usize) -> &mut Self {
        self.put((x as u32).to_le_bytes())
    }

    /// One of the two, by chance.
    fn either<T: Copy>(&mut self, items: &[T]) -> T {
        self.rng.pick(items)
    }

    /// int32 values around +-`size`.
    fn values(&mut self, n: usize, size: i64) -> &mut Self {
        for _ in 0..n {
            let v = match self.mood {
                Mood::Typical => self.rng.range(-size, size) as i32,
                Mood::Edge => self.rng.pick(EDGES),
                Mood::Hostile => self.rng.draw() as i32,
            };
            self.put(v.to_le_bytes());
        }
        self
    }

    /// int64 values around +-2^`bits`.
    fn wide(&mut self, n: usize, bits: u32) -> &mut Self {
        for _ in 0..n {
            let v = match self.mood {
                Mood::Typical => self.rng.range(-(1 << bits), 1 << bits),
                Mood::Edge => self
                    .rng
                    .pick(&[0, 1, -1, i64::MAX, i64::MIN, 1 << 46, -(1 << 46)]),
                Mood::Hostile => self.rng.draw() as i64,
            };
            self.put(v.to_le_bytes());
        }
        self
    }

    /// Numbers from 0 to 2^`bits`, 8 bytes each.
    fn long(&mut self, n: usize, bits: u32) -> &mut Self {
        for _ in 0..n {
            let v = match self.mood {
                Mood::Typical => self.rng.draw() >> (64 - bits),
                Mood::Edge => self.rng.pick(&[0, 1, u64::MAX, 1 << 61, (1 << 62) - 1, 1 << 63]),
                Mood::Hostile => self.rng.draw(),
            };
            self.put(v.to_le_bytes());
        }
        self
    }

    /// Numbers from 0 to 2^`bits`, 4 bytes each.
    fn size(&mut self, bits: u32) -> &mut Self {
        let v = match self.mood {
            Mood::Typical => (self.rng.draw() >> (64 - bits)) as u32,
            Mood::Edge => self
                .rng
                .pick(&[0, 1, 1 << 22, (1 << 23) - 1, 1 << 24, 1 << 31, u32::MAX]),
            Mood::Hostile => self.rng.draw() as u32,
        };
        self.put(v.to_le_bytes())
    }

    /// Bytes that are integers in +-127.
    fn ints(&mut self, n: usize) -> &mut Self {
        for _ in 0..n {
            let v = match self.mood {
                Mood::Typical => self.rng.range(-127, 127) as i8,
                Mood::Edge => self.rng.pick(&[127, -127, -128, 0]),
                Mood::Hostile => self.rng.draw() as i8,
            };
            self.put(v.to_le_bytes());
        }
        self
    }

    fn scale(&mut self) -> &mut Self {
        let s = match self.mood {
            Mood::Typical => Scale {
                m: self.rng.range(32_768, 65_535) as u16,
                e: self.rng.range(-30, -15) as i16,
            },
            Mood::Edge => scale(self.rng.pick(SCALES)),
            Mood::Hostile => Scale {
                m: self.rng.draw() as u16,
                e: self.rng.draw() as i16,
            },
        };
        self.put(s.to_bytes())
    }

    fn unit(&mut self) -> &mut Self {
        let e = match self.mood {
            Mood::Typical => self.rng.range(-25, -15) as i16,
            Mood::Edge => self.rng.pick(&[0, i16::MAX, i16::MIN, -20]),
            Mood::Hostile => self.rng.draw() as i16,
        };
        match self.mood != Mood::Typical && self.rng.draw() & 3 == 0 {
            true => self.put([0; 3]),
            false => self.u8(1).put(e.to_le_bytes()),
        }
    }

    /// Fraction bits.
    fn bits(&mut self) -> &mut Self {
        let f = match self.mood {
            Mood::Typical => self.rng.range(12, 18) as u8,
            Mood::Edge => self.rng.pick(&[0, 16, 30]),
            Mood::Hostile => self.rng.draw() as u8,
        };
        self.put([f])
    }

    fn threshold(&mut self) -> &mut Self {
        let p = match self.mood {
            Mood::Typical => self.rng.range(1, 1 << 30) as u32,
            Mood::Edge => self.rng.pick(&[0, 2_147_418_112, u32::MAX]),
            Mood::Hostile => self.rng.draw() as u32,
        };
        let id = self.rng.pick(&[0, 3, 1_000, u32::MAX]);
        self.put(p.to_le_bytes()).put(id.to_le_bytes())
    }
}

/// Lengths of parts.
const COUNTS: &[usize] = &[1, 2, 31, 33, 64, 256];

/// One input of a kind.
fn input(kind: Kind, i: &mut Input<'_>) {
    let n = i.either(COUNTS);
    let p_bits = i.either(&[15, 23]);
    let planes = i.either(&[1, 2]);
    let grouped = i.either(&[0, 1]);
    i.u8(kind as usize);
    match kind {
        Kind::LinearPart => {
            i.u8(planes).u8(grouped).u16(n).ints(n * planes).ints(n);
            mults(i, grouped * n);
        }
        Kind::LinearFinish => {
            let segments = i.either(&[1, 2, 4, 8]);
            i.u8(planes)
                .bits()
                .u8(segments)
                .u16(n.min(4))
                .scale()
                .values(1, 9_999);
            (0..segments).for_each(|_| {
                i.scale();
            });
            i.wide(segments * n.min(4), 24);
        }
        Kind::WeightBounds => {
            i.u8(grouped).u32(n).ints(n);
            mults(i, grouped * n);
        }
        Kind::KeyUnit => {
            i.scale();
        }
        Kind::KeyScore | Kind::KeyShare => {
            let d = i.either(&[1, 3, 8, 64, 128, 1024]);
            i.u16(d);
            if kind == Kind::KeyShare {
                let element = i.rng.range(0, d as i64 - 1) as usize;
                i.u16(element).u8(p_bits);
            }
            i.scale().unit();
            if kind == Kind::KeyShare {
                let position = i.either(&[0, 1, 77, 131_071]);
                i.unit().values(1, 1 << 26).u32(position);
            }
            i.scale().ints(d).ints(d).scale().ints(d).scale();
        }
        Kind::KeySums => {
            let n = n * 2;
            i.u16(n);
            (0..n).for_each(|_| {
                i.size(31).size(23).ints(1);
            });
        }
        Kind::AttentionFinish => {
            i.u8(p_bits).bits().unit().u16(n.min(8));
            (0..n.min(8)).for_each(|_| {
                i.wide(1, 40).long(1, 40);
            });
        }
        Kind::Magnitude | Kind::QuantElement => {
            let block = i.either(&[0, 0, 2, 4, 32, 512]);
            let index = i.rng.range(0, block.max(1) as i64 - 1) as usize;
            if kind == Kind::QuantElement {
                i.u8(planes);
            }
            i.u16(block).u16(index).size(24);
            if kind == Kind::QuantElement {
                i.size(24);
            }
            i.values(block.max(1), 1 << 20);
        }
        Kind::QuantScale => {
            i.u8(planes).bits().u8(grouped).size(24).size(24);
        }
        Kind::Probability => {
            i.bits();
            temperature(i);
            i.values(2, 1 << 20);
        }
        Kind::IdSums => {
            i.bits();
            temperature(i);
            i.values(1, 1 << 19).threshold().threshold();
            let (token, first) = (i.either(&[0, 7, 1_003]), i.either(&[0, 4, 1_000]));
            i.u32(token).u32(first).u16(n.min(16)).values(n.min(16), 1 << 19);
        }
        Kind::IdTotal => {
            i.u16(n);
            (0..n).for_each(|_| sums(i));
        }
        Kind::Draw => {
            let (vocab, k, p) = (
                i.either(&[1_000, 49_152]),
                i.either(&[0, 40]),
                i.either(&[0, 60_000, 65_536]),
            );
            i.u32(vocab)
                .u32(k)
                .u32(p)
                .long(1, 60)
                .size(10)
                .threshold()
                .threshold()
                .size(31)
                .size(15);
            sums(i);
        }
        Kind::Greedy => {
            i.values(1, 2).size(2).values(1, 2).size(2);
        }
        Kind::Embed => {
            let mult = i.either(&[1, 15]);
            i.bits().ints(1).u8(mult).scale();
        }
        Kind::Add => {
            i.values(2, 1 << 30);
        }
        Kind::Glu | Kind::Act => {
            let act = i.either(&[0, 1, 2]);
            i.u8(act)
                .bits()
                .values(if kind == Kind::Glu { 2 } else { 1 }, 1 << 18);
        }
        Kind::Rope => {
            i.values(2, 1 << 22);
            let angles = (i.rng.draw() as i16, i.either(&[0, 32_767, -32_768, 23_170]));
            i.put(angles.0.to_le_bytes()).put(i16::to_le_bytes(angles.1));
        }
        Kind::KvRecord => {
            let (d, heads) = (i.either(&[2, 64, 128, 300, 600]), i.either(&[1, 3, 9]));
            let head = i.rng.range(0, heads as i64 - 1) as usize;
            i.u16(d).u16(heads).u16(head).ints(d).scale().ints(d).scale();
        }
        Kind::Squares => {
            i.size(24).u16(n).values(n, 1 << 22);
        }
        Kind::RmsElement | Kind::LayerElement => {
            group(i);
            i.long(1, 12);
            let gain_f = match i.mood {
                Mood::Typical => i.rng.range(18, 22) as i8,
                Mood::Edge => i.either(&[21, 127, -128]),
                Mood::Hostile => i.rng.draw() as i8,
            };
            i.put(gain_f.to_le_bytes()).bits();
            if kind == Kind::RmsElement {
                i.size(24).u16(n.min(9)).values(2, 1 << 21).long(n.min(9), 50);
            } else {
                i.wide(1, 30)
                    .long(1, 34)
                    .u16(n.min(9))
                    .values(3, 1 << 21)
                    .long(n.min(9), 50);
            }
        }
        Kind::Sum => {
            i.u16(n).values(n, 1 << 24);
        }
        Kind::Centred => {
            group(i);
            i.wide(1, 36).values(1, 1 << 22);
        }
        Kind::CentredSquares => {
            group(i);
            i.wide(1, 36).long(1, 34).u16(n).values(n, 1 << 22);
        }
        Kind::PoolMean => {
            let rows = i.either(&[1, 2, 3, 128, 129, 1 << 17, 0xffff_ffff]);
            i.u32(rows).wide(1, 36);
        }
    }
}

/// A multiplier for every 32 of `n`.
fn mults(i: &mut Input<'_>, n: usize) {
    for _ in 0..n.div_ceil(32) {
        let m = match i.mood {
            Mood::Typical => i.rng.range(1, 15) as u8,
            Mood::Edge => i.either(&[1, 15, 15, 0]),
            Mood::Hostile => i.rng.draw() as u8,
        };
        i.put([m]);
    }
}

fn temperature(i: &mut Input<'_>) {
    let t = match i.mood {
        Mood::Typical => i.rng.range(30_000, 130_000) as u32,
        Mood::Edge => i.either(&[0, 1, 65_536, u32::MAX]),
        Mood::Hostile => i.rng.draw() as u32,
    };
    i.put(t.to_le_bytes());
}

fn group(i: &mut Input<'_>) {
    let d = i.either(&[1, 2, 3, 576, 4_096, 32_767, 32_768]);
    i.u32(d);
}

fn sums(i: &mut Input<'_>) {
    i.size(10).long(1, 40).size(10).long(1, 40).long(1, 39);
}

/// Keys at and just below the largest score, where weights are large and the place of the key rounds them.
fn near_keys(rng: &mut Rng) -> Vec<Vec<u8>> {
    const D: usize = 8;
    let mut all = vec![];
    for position in [1u32, 2, 3, 50, 77, 127, 128, 255, 256, 1_001, 131_071] {
        let mut i = Input {
            rng: &mut *rng,
            mood: Mood::Typical,
            bytes: vec![],
        };
        i.scale().ints(D).ints(D).scale().ints(D).scale();
        let opened = i.bytes;
        let site = Scale { m: 47_274, e: -18 }.to_bytes();
        let unit = [&[1][..], &(-15i16).to_le_bytes()].concat();
        let d = (D as u16).to_le_bytes();
        let key = [&[Kind::KeyScore as u8][..], &d, &site, &unit, &opened].concat();
        let score = execute(&key).ok().and_then(|b| b.first_chunk().copied());
        let score = score.map_or(0, i32::from_le_bytes);
        for (p_bits, above) in [(15, 0), (23, 0), (23, 1 << 14)] {
            let max = score.saturating_add(above).to_le_bytes();
            let fixed = [
                &[Kind::KeyShare as u8][..],
                &d,
                &[3, 0, p_bits],
                &site,
                &unit,
                &unit,
                &max,
            ]
            .concat();
            all.push([&fixed[..], &position.to_le_bytes(), &opened].concat());
        }
    }
    all
}

/// Inputs that every implementation refuses.
fn refused() -> Vec<Vec<u8>> {
    let kind = |k: Kind, rest: &[u8]| [&[k as u8][..], rest].concat();
    let mut all = vec![
        vec![],
        vec![0x00],
        vec![0x13; 40],
        vec![0xff],
        kind(Kind::Add, &[0; 7]),
        kind(Kind::Add, &[0; 9]),
        kind(Kind::LinearPart, &[0, 0, 1, 0, 5, 5]),
        kind(Kind::LinearPart, &[3, 0, 1, 0, 5, 5]),
        kind(Kind::LinearPart, &[1, 2, 1, 0, 5, 5, 1]),
        kind(Kind::LinearPart, &[1, 0, 0, 0]),
        kind(Kind::LinearPart, &[&[1, 0, 1, 1][..], &[0; 514]].concat()),
        kind(Kind::LinearPart, &[1, 1, 1, 0, 5, 5]),
        kind(Kind::LinearPart, &[1, 0, 1, 0, 5, 5, 1]),
        kind(Kind::LinearFinish, &[&[1, 16, 3, 1, 0][..], &[0; 44]].concat()),
        kind(Kind::LinearFinish, &[&[1, 16, 2, 1, 0][..], &[0; 31]].concat()),
        kind(Kind::WeightBounds, &[0, 0, 0, 0, 0]),
        kind(Kind::WeightBounds, &[0, 1, 0, 1, 0]),
        kind(Kind::KeyUnit, &[0; 3]),
        kind(Kind::KeyScore, &[0; 21]),
        kind(
            Kind::KeyScore,
            &[&[1, 0, 0, 0, 0, 0, 2, 0, 0][..], &[0; 15]].concat(),
        ),
        kind(
            Kind::KeyScore,
            &[&[1, 0, 0, 0, 0, 0, 0, 1, 0][..], &[0; 15]].concat(),
        ),
        kind(Kind::KeyShare, &[&[1, 0, 1, 0, 15][..], &[0; 33]].concat()),
        kind(Kind::KeyShare, &[&[1, 0, 0, 0, 16][..], &[0; 33]].concat()),
        kind(Kind::KeyShare, &[&[1, 4, 0, 0, 15][..], &[0; 3_105]].concat()),
        kind(Kind::KeySums, &[0, 0]),
        kind(Kind::KeySums, &[&[1, 2][..], &[0; 4_617]].concat()),
        kind(
            Kind::AttentionFinish,
            &[&[14, 16, 0, 0, 0, 1, 0][..], &[0; 16]].concat(),
        ),
        kind(Kind::Magnitude, &[&[3, 0, 0, 0][..], &[0; 16]].concat()),
        kind(Kind::Magnitude, &[&[1, 0, 0, 0][..], &[0; 8]].concat()),
        kind(Kind::Magnitude, &[&[0, 4, 0, 0][..], &[0; 4_100]].concat()),
        kind(Kind::Magnitude, &[&[2, 0, 2, 0][..], &[0; 12]].concat()),
        kind(Kind::Magnitude, &[&[0, 0, 1, 0][..], &[0; 8]].concat()),
        kind(Kind::QuantScale, &[&[1, 16, 2][..], &[0; 8]].concat()),
        kind(Kind::QuantElement, &[&[0, 0, 0, 0, 0][..], &[0; 12]].concat()),
        kind(Kind::IdTotal, &[&[1, 0][..], &[0; 31]].concat()),
        kind(Kind::Draw, &[0; 79]),
        kind(Kind::Greedy, &[0; 17]),
        kind(Kind::Glu, &[&[3, 16][..], &[0; 8]].concat()),
        kind(Kind::Act, &[&[3, 16][..], &[0; 4]].concat()),
        kind(Kind::KvRecord, &[&[2, 0, 1, 0, 1, 0][..], &[0; 12]].concat()),
        kind(Kind::KvRecord, &[&[0, 0, 1, 0, 0, 0][..], &[0; 8]].concat()),
        kind(Kind::RmsElement, &[&[0, 0, 0, 0][..], &[0; 32]].concat()),
        kind(Kind::Centred, &[&[1, 128, 0, 0][..], &[0; 12]].concat()),
        kind(Kind::PoolMean, &[0; 12]),
    ];
    // Every kind, cut by a byte.
    let mut rng = Rng::new("vectors steps refused");
    for k in Kind::ALL {
        let mut i = Input {
            rng: &mut rng,
            mood: Mood::Typical,
            bytes: vec![],
        };
        input(*k, &mut i);
        let (cut, mut longer) = (i.bytes[..i.bytes.len() - 1].to_vec(), i.bytes);
        longer.push(0);
        all.extend([cut, longer]);
    }
    all
}

fn hex0x(bytes: &[u8]) -> Value {
    Value::from(format!("0x{}", hex::encode(bytes)))
}

fn cases(kind: Kind, rng: &mut Rng) -> Vec<Value> {
    // A few large inputs more would say nothing new and make the file longer.
    let (moods, rounds) = ([Mood::Typical, Mood::Edge, Mood::Hostile], 6);
    let mut inputs = vec![];
    for mood in moods {
        for _ in 0..rounds {
            let bytes = vec![];
            let mut i = Input { rng, mood, bytes };
            input(kind, &mut i);
            inputs.push(i.bytes);
        }
    }
    match kind {
        Kind::Draw => {
            inputs.extend(draws());
            inputs.extend(more_draws());
        }
        Kind::KeyShare => inputs.extend(near_keys(rng)),
        Kind::QuantScale => inputs.extend(round_scales()),
        _ => {}
    }
    inputs
        .iter()
        .flat_map(|i| match execute(i) {
            Ok(out) => [hex0x(i), hex0x(&out)],
            Err(e) => unreachable!("a vector that is no step: {e}"),
        })
        .collect()
}

pub(crate) fn files() -> Vec<File> {
    let mut rng = Rng::new("vectors steps");
    let mut rules: Vec<_> = Kind::ALL
        .iter()
        .map(|kind| (kind.name(), cases(*kind, &mut rng)))
        .collect();
    rules.push(("refused", refused().iter().map(|i| hex0x(i)).collect()));
    vec![File {
        name: "steps.json",
        about: "TENSOR_STEP by kind: an input, then its output, and so on; refused: inputs that are no step",
        rules,
    }]
}
