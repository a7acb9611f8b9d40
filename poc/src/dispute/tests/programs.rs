//! `vectors/programs.json`: programs with one word changed, and whether the rules of the tensor spec and of the judge
//! hold for them. The book of programs reads the same records and keeps the same programs (`contracts/test/Programs.t.sol`).

use bitai_kernels::{
    Site,
    load::needs,
    program::SiteId,
    site_code::{NONE, SITE_LEN, code},
};
use serde_json::{Value, json};

use super::{inner::Units, *};

/// Words of a record, and numbers of a program beside its sites.
const WORDS: usize = SITE_LEN / 4;
const DIMS: usize = 7;
/// Stands for the program's own numbers where a site is named.
const OF_PROGRAM: u16 = u16::MAX;

/// A program as the book takes it.
#[derive(Clone)]
struct Raw {
    dims: [u32; DIMS],
    tensors: u32,
    records: Vec<[u8; SITE_LEN]>,
}

impl Raw {
    fn of(p: &Program, tensors: usize) -> Self {
        Self {
            dims: [
                p.layers,
                p.d_model,
                p.vocab,
                p.context,
                p.kv_heads,
                p.head_dim,
                p.checkpoint_stride,
            ],
            tensors: u32::try_from(tensors).unwrap(),
            records: p.sites.iter().map(|s| s.encode().unwrap()).collect(),
        }
    }

    fn word(&self, site: usize, word: usize) -> u32 {
        u32::from_le_bytes(self.records[site][4 * word..4 * word + 4].try_into().unwrap())
    }

    /// With one word replaced.
    fn with(&self, site: u16, word: u8, value: u32) -> Self {
        let mut other = self.clone();
        let word = usize::from(word);
        if site == OF_PROGRAM {
            other.dims[word] = value;
        } else {
            other.records[usize::from(site)][4 * word..4 * word + 4].copy_from_slice(&value.to_le_bytes());
        }
        other
    }

    /// Whether a claim on the program has games: every device loads it, a job can ask for it, its units fit a dispute
    /// and the pack has its tensors. Where it has none, the judge convicts at set-up or refuses.
    fn has_disputes(&self) -> bool {
        let sites: Result<Vec<Site>, _> = self.records.iter().map(Site::decode).collect();
        let Ok(sites) = sites else { return false };
        let [
            layers,
            d_model,
            vocab,
            context,
            kv_heads,
            head_dim,
            checkpoint_stride,
        ] = self.dims;
        let p = Program {
            layers,
            d_model,
            vocab,
            context,
            kv_heads,
            head_dim,
            checkpoint_stride,
            sites,
        };
        p.validate().is_ok()
            && p.answers().is_ok()
            && p.emits().is_none()
            && Units::new(&p).is_ok()
            && p.sites
                .iter()
                .flat_map(|s| needs(&p, &s.op))
                .all(|need| need.id < self.tensors)
    }
}

/// A decoder whose width is no multiple of 32, so that its embedding takes no multipliers.
fn narrow() -> Raw {
    let mut sites: Vec<Site> = vec![];
    let mut put = |layer, op, inputs: &[SiteId]| {
        let inputs = inputs.to_vec();
        sites.push(Site { layer, op, inputs });
        u32::try_from(sites.len() - 1).unwrap()
    };
    let weight = Weight {
        q: 0,
        scale: 1,
        mult: None,
        bias: None,
    };
    let quant = |group| Op::Quant {
        planes: 1,
        wht: 0,
        group,
        f_in: 16,
    };
    let linear = |n, k| Op::Linear {
        weight,
        n,
        k,
        k_segments: 1,
        f_out: 16,
    };
    let h = put(None, Op::Embed { weight, f_out: 14 }, &[]);
    let layer = Some(0);
    let x = put(layer, quant(40), &[h]);
    let heads: Vec<SiteId> = (0..3)
        .map(|_| {
            let y = put(layer, linear(8, 40), &[x]);
            put(layer, quant(4), &[y])
        })
        .collect();
    let (heads_n, head_dim) = (2, 4);
    let cache = Op::KvAppend {
        heads: heads_n,
        head_dim,
    };
    let kv = put(layer, cache, &heads[1..]);
    let attention = Op::Attention {
        heads: heads_n,
        kv_heads: heads_n,
        head_dim,
        scale_m: 46_000,
        scale_e: -23,
        p_bits: 15,
        window: 0,
        causal: true,
        f_out: 16,
    };
    let a = put(layer, attention, &[heads[0], kv]);
    let a = put(layer, quant(8), &[a]);
    let a = put(layer, linear(40, 8), &[a]);
    let h = put(layer, Op::Add, &[h, a]);
    let h = put(layer, Op::Out, &[h]);
    let x = put(None, quant(40), &[h]);
    let logits = put(None, linear(50, 40), &[x]);
    put(None, Op::Sample { f: 16 }, &[logits]);
    let p = Program {
        layers: 1,
        d_model: 40,
        vocab: 50,
        context: 64,
        kv_heads: heads_n,
        head_dim,
        checkpoint_stride: 1,
        sites,
    };
    Raw::of(&p, 2)
}

/// Numbers around every bound of the rules.
const EDGES: [u32; 44] = [
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    15,
    16,
    17,
    23,
    24,
    30,
    31,
    32,
    33,
    64,
    127,
    128,
    255,
    256,
    257,
    512,
    513,
    1_024,
    1_026,
    2_048,
    32_768,
    32_769,
    65_535,
    65_536,
    65_537,
    131_072,
    131_073,
    1 << 20,
    (1 << 20) + 1,
    0x7fff_ffff,
    0xffff_7fff,
    0xffff_8000,
    0xffff_ff7f,
    0xffff_ff80,
    NONE - 1,
    NONE,
];

/// Changed words of a program: a few values for each word of each site, more where it stands for an op, a layer, an input
/// or a parameter in use; numbers of the program around their bounds.
fn changes(raw: &Raw, seed: u64) -> Vec<(u16, u8, u32)> {
    let mut state = seed;
    let mut draw = |n: usize| {
        // xorshift64 (Marsaglia, 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % n as u64).unwrap()
    };
    let mut all = vec![];
    for word in 0..DIMS as u8 {
        let edges = EDGES.iter().filter(|_| draw(4) == 0);
        all.extend(edges.map(|x| (OF_PROGRAM, word, *x)));
    }
    let sites = raw.records.len();
    for site in 0..sites {
        for word in 0..WORDS {
            let now = raw.word(site, word);
            let edge = EDGES[draw(EDGES.len())];
            let other = raw.word(draw(sites), word);
            let mut values = match word {
                0 => (0..3).map(|_| 1 + draw(16) as u32).collect(),
                1 => vec![NONE, now.wrapping_add(1), now.wrapping_sub(1)],
                2 | 3 => vec![other, now.wrapping_sub(1)],
                _ if word < 10 => vec![if draw(2) == 0 { other } else { edge }],
                _ if now != 0 => vec![other, edge, 31],
                _ if draw(5) == 0 => vec![edge],
                _ => vec![],
            };
            // A unit without a gate reads what an out row reads.
            if word == 0 && now == code::OUT {
                values.push(code::ACT);
            }
            values.sort_unstable();
            values.dedup();
            let place = (u16::try_from(site).unwrap(), u8::try_from(word).unwrap());
            all.extend(
                values
                    .into_iter()
                    .filter(|x| *x != now)
                    .map(|x| (place.0, place.1, x)),
            );
        }
    }
    // V11: the last attention reads the cached row of the layer before.
    let of = |op| (0..sites).filter(|i| raw.word(*i, 0) == op).collect::<Vec<_>>();
    let (kv, attention) = (of(code::KV_APPEND), of(code::ATTENTION));
    if kv.len() > 1 {
        let reader = u16::try_from(attention[kv.len() - 1]).unwrap();
        all.push((reader, 3, u32::try_from(kv[kv.len() - 2]).unwrap()));
    }
    all
}

fn programs() -> Value {
    let (one, two) = (Model::new(2), Model::second(1));
    let raws = [
        Raw::of(&one.program, one.tensors.len()),
        Raw::of(&two.program, two.tensors.len()),
        narrow(),
    ];
    let list: Vec<Value> = (1u64..)
        .zip(&raws)
        .map(|(seed, raw)| {
            assert!(raw.has_disputes(), "the program itself");
            let mut kept = 0;
            let mut bytes = vec![];
            for (site, word, value) in changes(raw, seed) {
                let verdict = raw.with(site, word, value).has_disputes();
                kept += u32::from(verdict);
                bytes.extend(site.to_be_bytes());
                bytes.push(word);
                bytes.extend(value.to_be_bytes());
                bytes.push(u8::from(verdict));
            }
            assert!(kept > 20, "{kept} changes keep the rules");
            json!({
                "dims": raw.dims,
                "tensorCount": raw.tensors,
                "records": alloy_primitives::hex::encode_prefixed(raw.records.concat()),
                "changes": alloy_primitives::hex::encode_prefixed(bytes),
            })
        })
        .collect();
    json!({
        "about": "written by poc/src/dispute/tests/programs.rs, read by contracts/test/Programs.t.sol; a change is site (2 bytes, big-endian; ffff: the program's own numbers), word (1), its new value (4), and 1 where the program has disputes (1)",
        "programs": list,
    })
}

#[test]
fn committed_programs_are_judged_so() {
    games::committed("programs", &programs());
}
