//! Imports of small files made here: every quantisation, and every refusal by its name.
#![allow(
    clippy::unwrap_used,
    reason = "in a test it says that the rest depends on this"
)]

mod common;

use std::{collections::HashMap, io::Cursor, path::PathBuf};

use bitai_kernels::{Sampler, cpu::CpuDevice};
use bitai_model::{
    engine::Engine,
    import::{ImportError, ImportOptions, Imported, import_gguf},
    pack::{Pack, Profile},
};
use candle_core::{
    Device, Tensor,
    quantized::{
        GgmlDType, QTensor,
        ggml_file::qtensor_from_ggml,
        gguf_file::{self, Value},
    },
};
use common::Heard;

const D: usize = 256;
const VOCAB: usize = 300;

/// A Llama file in the making.
struct Maker {
    fields: HashMap<String, Value>,
    tensors: Vec<(String, QTensor)>,
}

/// Reproducible numbers around 0.
fn numbers(rows: usize, cols: usize, seed: usize) -> Tensor {
    let mut state = seed as u64 * 2 + 1;
    let v: Vec<f32> = (0..rows * cols)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / 16_777_216.0 - 0.5) * 0.1
        })
        .collect();
    Tensor::from_vec(v, (rows, cols), &Device::Cpu).unwrap()
}

impl Maker {
    fn new(dtype: GgmlDType) -> Self {
        let mut fields = HashMap::new();
        let mut set = |k: &str, v: Value| fields.insert(k.to_owned(), v);
        set("general.architecture", Value::String("llama".into()));
        set("llama.block_count", Value::U32(2));
        set("llama.context_length", Value::U32(64));
        set("llama.embedding_length", Value::U32(D as u32));
        set("llama.feed_forward_length", Value::U32(512));
        set("llama.attention.head_count", Value::U32(4));
        set("llama.attention.head_count_kv", Value::U32(2));
        set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
        set("tokenizer.ggml.model", Value::String("gpt2".into()));
        set("tokenizer.ggml.pre", Value::String("smollm".into()));
        let tokens = (0..VOCAB).map(|i| Value::String(format!("t{i}"))).collect();
        set("tokenizer.ggml.tokens", Value::Array(tokens));
        let mut maker = Self {
            fields,
            tensors: Vec::new(),
        };
        maker.put("token_embd.weight", &numbers(VOCAB, D, 1), dtype);
        maker.ones("output_norm.weight");
        for l in 0..2 {
            for (i, (name, n, k)) in [
                ("attn_q", D, D),
                ("attn_k", D / 2, D),
                ("attn_v", D / 2, D),
                ("attn_output", D, D),
                ("ffn_gate", 512, D),
                ("ffn_up", 512, D),
                ("ffn_down", D, 512),
            ]
            .into_iter()
            .enumerate()
            {
                maker.put(
                    &format!("blk.{l}.{name}.weight"),
                    &numbers(n, k, 10 * l + i + 2),
                    dtype,
                );
            }
            maker.ones(&format!("blk.{l}.attn_norm.weight"));
            maker.ones(&format!("blk.{l}.ffn_norm.weight"));
        }
        maker
    }

    fn put(&mut self, name: &str, t: &Tensor, dtype: GgmlDType) {
        self.tensors.retain(|(n, _)| n != name);
        self.tensors
            .push((name.into(), QTensor::quantize(t, dtype).unwrap()));
    }

    fn ones(&mut self, name: &str) {
        let t = Tensor::ones(D, candle_core::DType::F32, &Device::Cpu).unwrap();
        self.put(name, &t, GgmlDType::F32);
    }

    fn set(mut self, key: &str, value: Value) -> Self {
        self.fields.insert(key.into(), value);
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.tensors.retain(|(n, _)| n != name);
        self.fields.remove(name);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let fields: Vec<(&str, &Value)> = self.fields.iter().map(|(k, v)| (k.as_str(), v)).collect();
        let tensors: Vec<(&str, &QTensor)> = self.tensors.iter().map(|(k, v)| (k.as_str(), v)).collect();
        let mut out = Cursor::new(Vec::new());
        gguf_file::write(&mut out, &fields, &tensors).unwrap();
        out.into_inner()
    }

    fn import(&self) -> Result<Imported, ImportError> {
        import(&self.bytes(), &ImportOptions::default()).map(|(made, ..)| made)
    }
}

fn import(
    bytes: &[u8],
    options: &ImportOptions,
) -> Result<(Imported, PathBuf, tempfile::TempDir), ImportError> {
    let dir = tempfile::tempdir().unwrap();
    let gguf = dir.path().join("m.gguf");
    std::fs::write(&gguf, bytes).unwrap();
    let pack = dir.path().join("m.pack");
    let result = import_gguf(&gguf, &pack, options, &mut |_, _| {});
    if result.is_err() {
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "a refused import leaves nothing"
        );
    }
    result.map(|made| (made, pack, dir))
}

#[test]
fn every_quantisation_imports_and_runs() {
    for dtype in [
        GgmlDType::F32,
        GgmlDType::F16,
        GgmlDType::BF16,
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q2K,
        GgmlDType::Q3K,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
    ] {
        let (_, path, _dir) = import(&Maker::new(dtype).bytes(), &ImportOptions::default()).unwrap();
        let pack = Pack::open(&path).unwrap();
        pack.verify(&mut |_, _| {}).unwrap();
        let mut engine = Engine::new(&pack, &CpuDevice::new(1).unwrap()).unwrap();
        let mut heard = Heard::default();
        let out = engine
            .generate(&[1, 2, 3], 2, &[], &Sampler::Greedy, &mut heard, &mut |_| {})
            .unwrap();
        assert_eq!((out.len(), heard.bodies.len()), (2, 4), "{dtype:?}");
    }
}

#[test]
fn an_own_head_biases_scaled_rope_and_sentencepiece_import_and_run() {
    let mut maker = Maker::new(GgmlDType::F32);
    maker.put("output.weight", &numbers(VOCAB, D, 77), GgmlDType::Q8_0);
    for l in 0..2 {
        for (name, n) in [("attn_q", D), ("attn_k", D / 2), ("attn_v", D / 2)] {
            let t = numbers(1, n, 80 + l).flatten_all().unwrap();
            maker.put(&format!("blk.{l}.{name}.bias"), &t, GgmlDType::F32);
        }
    }
    let factors = Tensor::full(8f32, 32, &Device::Cpu).unwrap();
    maker.put("rope_freqs.weight", &factors, GgmlDType::F32);
    // SentencePiece: bytes, then a few pieces with scores.
    let text = |s: &str| Value::String(s.into());
    let mut tokens: Vec<Value> = [text("<unk>"), text("<s>"), text("</s>")].into();
    tokens.extend((0..256).map(|b| text(&format!("<0x{b:02X}>"))));
    let pieces = ["\u{2581}", "s", "e", "a", "se", "sea", "\u{2581}sea", "ea"];
    tokens.extend(pieces.map(text));
    let mut types = vec![Value::I32(2), Value::I32(3), Value::I32(3)];
    types.extend(vec![Value::I32(6); 256]);
    types.extend(vec![Value::I32(1); pieces.len()]);
    while tokens.len() < VOCAB {
        tokens.push(text(&format!("<pad{}>", tokens.len())));
        types.push(Value::I32(5));
    }
    let scores = (0..VOCAB).map(|i| Value::F32(-(i as f32))).collect();
    let maker = maker
        .set("tokenizer.ggml.model", text("llama"))
        .set("tokenizer.ggml.tokens", Value::Array(tokens))
        .set("tokenizer.ggml.token_type", Value::Array(types))
        .set("tokenizer.ggml.scores", Value::Array(scores))
        .set("tokenizer.ggml.bos_token_id", Value::U32(1))
        .set("tokenizer.ggml.eos_token_id", Value::U32(2))
        .set("tokenizer.ggml.unknown_token_id", Value::U32(0));
    for profile in [Profile::A, Profile::B] {
        let options = ImportOptions {
            profile,
            ..Default::default()
        };
        let (_, path, _dir) = import(&maker.bytes(), &options).unwrap();
        let pack = Pack::open(&path).unwrap();
        pack.verify(&mut |_, _| {}).unwrap();
        assert!(!pack.manifest().info.hyper.tied);
        let tokenizer = bitai_model::tokenizer::Tokenizer::of(&pack).unwrap();
        let ids = tokenizer.encode("sea \u{fc}").unwrap();
        // bos, the whole word with its space, a space, two bytes.
        assert_eq!(ids, [1, 265, 259, 3 + 0xc3, 3 + 0xbc]);
        assert_eq!(tokenizer.decode(&ids).unwrap(), "sea \u{fc}");
        let mut engine = Engine::new(&pack, &CpuDevice::new(1).unwrap()).unwrap();
        let mut heard = Heard::default();
        let out = engine
            .generate(&ids, 2, &[], &Sampler::Greedy, &mut heard, &mut |_| {})
            .unwrap();
        assert_eq!((out.len(), heard.bodies.len()), (2, 6));
    }
}

#[test]
fn threads_change_nothing_and_profiles_do() {
    let bytes = Maker::new(GgmlDType::Q8_0).bytes();
    let root = |threads, profile| {
        let options = ImportOptions {
            threads,
            profile,
            ..Default::default()
        };
        import(&bytes, &options).unwrap().0.model_root
    };
    for profile in [Profile::A, Profile::B] {
        let one = root(1, profile);
        assert!(
            [2, 3, 8].into_iter().all(|t| root(t, profile) == one),
            "{profile:?}"
        );
    }
    assert_ne!(root(1, Profile::A), root(1, Profile::B));
}

#[test]
fn a_rotated_model_says_nearly_the_same_logits() {
    // Profile B of a float file: the same function up to 8-bit activations.
    let bytes = Maker::new(GgmlDType::F32).bytes();
    let logits = |profile| {
        let options = ImportOptions {
            profile,
            ..Default::default()
        };
        let (_, path, _dir) = import(&bytes, &options).unwrap();
        let pack = Pack::open(&path).unwrap();
        let mut engine = Engine::new(&pack, &CpuDevice::new(1).unwrap()).unwrap();
        let site = engine.program().sites.len() as u32 - 2;
        let mut probe = Logits {
            site,
            rows: Vec::new(),
        };
        let ids: Vec<u32> = (0..24).map(|i| i * 11 % 300).collect();
        engine
            .recheck_probed(
                &ids[..1],
                &ids[1..],
                &Sampler::Greedy,
                &mut Heard::default(),
                Some(&mut probe),
            )
            .unwrap();
        probe.rows
    };
    let (a, b) = (logits(Profile::A), logits(Profile::B));
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosine = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
    assert!(cosine > 0.995, "{cosine}");
}

struct Logits {
    site: u32,
    rows: Vec<f64>,
}

impl bitai_kernels::Probe for Logits {
    fn site(&mut self, site: u32, _: u32, rows: &bitai_kernels::SiteRows) {
        if let (true, bitai_kernels::SiteRows::Acts { data, .. }) = (site == self.site, rows) {
            self.rows.extend(data.iter().map(|v| f64::from(*v)));
        }
    }
}

#[test]
fn rejects_nan_and_infinite_weights_by_name() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut maker = Maker::new(GgmlDType::F32);
        let mut v = vec![0.1f32; D * D];
        v[D + 7] = bad;
        let t = Tensor::from_vec(v, (D, D), &Device::Cpu).unwrap();
        maker.put("blk.1.attn_q.weight", &t, GgmlDType::F32);
        let got = maker.import().unwrap_err();
        assert!(
            matches!(&got, ImportError::NotFinite { name, index, .. } if name == "blk.1.attn_q.weight" && *index == D + 7),
            "{got}"
        );
    }
}

#[test]
fn rejects_scales_of_blocks_that_are_no_numbers() {
    // A half of all ones is NaN; it spoils the 32 elements of its block.
    for (dtype, at) in [(GgmlDType::Q8_0, 0), (GgmlDType::Q4_1, 2)] {
        let mut maker = Maker::new(dtype);
        let mut raw = QTensor::quantize(&numbers(D, 512, 5), dtype)
            .unwrap()
            .data()
            .unwrap()
            .to_vec();
        let start = 3 * dtype.type_size() + at;
        raw[start..start + 2].fill(0xff);
        let t = qtensor_from_ggml(dtype, &raw, vec![D, 512], &Device::Cpu).unwrap();
        maker = maker.without("blk.0.ffn_down.weight");
        maker.tensors.push(("blk.0.ffn_down.weight".into(), t));
        let got = maker.import().unwrap_err();
        assert!(
            matches!(&got, ImportError::NotFinite { name, index: 96, .. } if name == "blk.0.ffn_down.weight"),
            "{got}"
        );
    }
    // A norm's gain, a bias and RoPE's factors are weights too.
    let mut maker = Maker::new(GgmlDType::F32);
    let t = Tensor::full(f32::NAN, D, &Device::Cpu).unwrap();
    maker.put("output_norm.weight", &t, GgmlDType::F32);
    let got = maker.import().unwrap_err().to_string();
    assert!(
        got.contains("tensor output_norm.weight: element 0 is NaN"),
        "{got}"
    );
}

/// Where `what` ends in a file.
fn behind(all: &[u8], what: &[u8]) -> usize {
    all.windows(what.len()).position(|w| w == what).unwrap() + what.len()
}

#[test]
fn rejects_texts_of_a_file_that_are_no_utf8() {
    let mut all = Maker::new(GgmlDType::F32).bytes();
    let end = behind(&all, b"t299");
    all[end - 2] = 0xff;
    let got = import(&all, &ImportOptions::default()).unwrap_err();
    assert!(
        matches!(&got, ImportError::Field { key, why } if key == "tokenizer.ggml.tokens" && why == "element 299 is not UTF-8 at byte 2"),
        "{got}"
    );
}

#[test]
fn rejects_formats_without_a_decoder_by_number() {
    let mut all = Maker::new(GgmlDType::F32).bytes();
    // Behind the name: the count of dimensions, two of them, the format.
    let at = behind(&all, b"blk.1.ffn_up.weight") + 4 + 16;
    all[at] = 16;
    let got = import(&all, &ImportOptions::default()).unwrap_err();
    assert!(
        matches!(&got, ImportError::Unsupported { what } if what == "tensor blk.1.ffn_up.weight of ggml type 16"),
        "{got}"
    );
}

#[test]
fn rejects_other_architectures_and_says_what_they_need() {
    for (name, needs) in [
        ("mamba", "linear recurrences"),
        ("qwen3moe", "a mixture of experts"),
        ("deepseek2", "multi-head latent attention"),
        ("gemma2", "soft-caps"),
        ("martian", "a description of its blocks"),
    ] {
        let maker = Maker::new(GgmlDType::F32).set("general.architecture", Value::String(name.into()));
        let got = maker.import().unwrap_err().to_string();
        for part in [name, needs, "gemma3, llama, mistral, qwen2, qwen3"] {
            assert!(got.contains(part), "{got}");
        }
    }
}

#[test]
fn rejects_missing_extra_and_misshapen_tensors_by_name() {
    let got = Maker::new(GgmlDType::F32)
        .without("blk.1.ffn_up.weight")
        .import()
        .unwrap_err();
    assert!(
        matches!(&got, ImportError::MissingTensor { name } if name == "blk.1.ffn_up.weight"),
        "{got}"
    );

    let mut maker = Maker::new(GgmlDType::F32);
    maker.ones("blk.0.attn_q_norm.weight");
    let got = maker.import().unwrap_err();
    assert!(
        matches!(&got, ImportError::ExtraTensor { name } if name == "blk.0.attn_q_norm.weight"),
        "{got}"
    );

    let mut maker = Maker::new(GgmlDType::F32);
    maker.put("blk.0.ffn_down.weight", &numbers(512, D, 3), GgmlDType::F32);
    let got = maker.import().unwrap_err();
    assert!(
        matches!(&got, ImportError::TensorShape { name, want, got } if name == "blk.0.ffn_down.weight" && *want == [D, 512] && *got == [512, D]),
        "{got}"
    );
}

#[test]
fn rejects_what_it_does_not_compute_by_name() {
    let base = || Maker::new(GgmlDType::F32);
    let text = |s: &str| Value::String(s.into());
    for (maker, word) in [
        (base().set("llama.rope.scaling.type", text("yarn")), "yarn"),
        (
            base().set("llama.rope.dimension_count", Value::U32(32)),
            "rope.dimension_count",
        ),
        (base().set("llama.expert_count", Value::U32(8)), "expert"),
        (
            base().set("llama.final_logit_softcapping", Value::F32(30.0)),
            "final_logit_softcapping = 30",
        ),
        (base().set("llama.logit_scale", Value::F32(0.5)), "logit_scale"),
        (base().set("tokenizer.ggml.model", text("rwkv")), "rwkv"),
        (base().set("tokenizer.ggml.pre", text("martian")), "martian"),
    ] {
        let got = maker.import().unwrap_err();
        assert!(
            matches!(got, ImportError::Unsupported { .. }) && got.to_string().contains(word),
            "{got}"
        );
    }
    for (maker, word) in [
        (base().without("llama.block_count"), "llama.block_count"),
        (base().set("llama.block_count", text("two")), "llama.block_count"),
        (
            base().set("llama.attention.head_count_kv", Value::U32(3)),
            "head_count_kv",
        ),
        (
            base().set("tokenizer.ggml.tokens", Value::Array(vec![text("a")])),
            "tokens",
        ),
        (
            base().set("tokenizer.ggml.eos_token_id", Value::U32(9999)),
            "eos_token_id",
        ),
    ] {
        let got = maker.import().unwrap_err();
        assert!(
            matches!(got, ImportError::Field { .. }) && got.to_string().contains(word),
            "{got}"
        );
    }
}

#[test]
fn rejects_files_that_are_no_gguf_or_end_early() {
    let whole = Maker::new(GgmlDType::Q4_0).bytes();
    let options = ImportOptions::default();
    let got = import(b"PK\x03\x04 a zip file is no model", &options).unwrap_err();
    assert!(matches!(got, ImportError::Gguf { .. }), "{got}");
    for len in [0, 4, 100, 3000] {
        assert!(
            matches!(import(&whole[..len], &options), Err(ImportError::Gguf { .. })),
            "{len}"
        );
    }
    let got = import(&whole[..whole.len() - 4000], &options).unwrap_err();
    assert!(matches!(got, ImportError::Truncated { .. }), "{got}");
    let mut version = whole.clone();
    version[4] = 9;
    assert!(matches!(
        import(&version, &options),
        Err(ImportError::Gguf { .. })
    ));
    // An alignment of nothing.
    let aligned = Maker::new(GgmlDType::Q4_0)
        .set("general.alignment", Value::U32(0))
        .bytes();
    assert!(matches!(
        import(&aligned, &options),
        Err(ImportError::Gguf { .. })
    ));
    let missing = import_gguf(
        std::path::Path::new("/nonexistent.gguf"),
        std::path::Path::new("x"),
        &options,
        &mut |_, _| {},
    );
    assert!(matches!(missing, Err(ImportError::Io { .. })));
}

#[test]
fn flipped_bytes_never_panic() {
    let whole = Maker::new(GgmlDType::Q4_0).bytes();
    let mut state = 7u64;
    for _ in 0..100 {
        let mut all = whole.clone();
        for _ in 0..2 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Most of the structure is in the first 12 KiB.
            let at = (state >> 33) as usize % 12_000;
            all[at] ^= 1 << ((state >> 60) & 7);
        }
        let dir = tempfile::tempdir().unwrap();
        let gguf = dir.path().join("m.gguf");
        std::fs::write(&gguf, all).unwrap();
        let _ = import_gguf(
            &gguf,
            &dir.path().join("m.pack"),
            &ImportOptions::default(),
            &mut |_, _| {},
        );
    }
}
