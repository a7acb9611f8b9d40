//! Every architecture that is imported against candle's own implementation of it, on small models with
//! random weights. This is a test of meaning, not of bits: the figures are a mean cosine of the logits, a mean
//! KL divergence and the share of equal likeliest tokens, each with the tolerance of 8-bit weights and an
//! 8-bit cache. They are shown to be able to fail: a wrong pairing, window, pattern or base diverges far more.
#![allow(
    clippy::unwrap_used,
    reason = "in a test it says that the rest depends on this"
)]

mod common;

use bitai_benches::{
    oracle::Oracle,
    score::{Score, score},
};
use bitai_kernels::{Device, ReferenceDevice, Sampler, Trace, cpu::CpuDevice, rows::Hash};
use bitai_model::{
    engine::Engine,
    import::{ImportError, ImportOptions, import_gguf},
    pack::{Pack, Profile},
};
use common::{Model, Size, VOCAB, Value};

/// Two windows of tokens, longer than every sliding window here.
fn windows() -> Vec<Vec<u32>> {
    let token = |w: u64, i: u64| (w * 977 + i * i * 31 + i * 7 + 5) % VOCAB as u64;
    (0..2)
        .map(|w| (0..40).map(|i| token(w, i) as u32).collect())
        .collect()
}

const SIZE: Size = Size {
    layers: 3,
    d: 64,
    heads: 4,
    kv_heads: 2,
    head_dim: 16,
    d_ff: 160,
};

fn qwen2() -> Model {
    let mut m = Model::new("qwen2", SIZE, 2);
    m.set("rope.freq_base", Value::F32(1_000_000.0));
    for l in 0..SIZE.layers {
        m.bias(&format!("blk.{l}.attn_q"), 64, 1.0);
        m.bias(&format!("blk.{l}.attn_k"), 32, 1.0);
        m.bias(&format!("blk.{l}.attn_v"), 32, 1.0);
    }
    m
}

fn qwen3() -> Model {
    // 4 heads of 32 on a width of 64.
    let size = Size { head_dim: 32, ..SIZE };
    let mut m = Model::new("qwen3", size, 3);
    m.without("output.weight");
    m.set("rope.freq_base", Value::F32(1_000_000.0));
    m.weight("token_embd", VOCAB, 64, 0.4);
    for l in 0..size.layers {
        m.gain(&format!("blk.{l}.attn_q_norm"), 32);
        m.gain(&format!("blk.{l}.attn_k_norm"), 32);
    }
    m
}

fn mistral() -> Model {
    let mut m = Model::new("mistral", SIZE, 4);
    m.set("attention.sliding_window", Value::U32(6));
    m
}

fn gemma3() -> Model {
    // Seven layers: the sixth is global, the others see 6 tokens.
    let size = Size {
        layers: 7,
        head_dim: 32,
        ..SIZE
    };
    let mut m = Model::new("gemma3", size, 5);
    m.without("output.weight");
    m.set("attention.sliding_window", Value::U32(6));
    m.set("rope.freq_base", Value::F32(1_000_000.0));
    m.weight("token_embd", VOCAB, 64, 0.3);
    for l in 0..size.layers {
        m.gain(&format!("blk.{l}.attn_q_norm"), 32);
        m.gain(&format!("blk.{l}.attn_k_norm"), 32);
        m.gain(&format!("blk.{l}.post_attention_norm"), 64);
        m.gain(&format!("blk.{l}.post_ffw_norm"), 64);
    }
    m
}

/// Floats of one model against the integers of another (mostly the same one).
fn compare(float: &Model, int: &Model, profile: Profile) -> Score {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("float.gguf"), dir.path().join("int.gguf"));
    float.write(&a);
    int.write(&b);
    let windows = windows();
    let mut logits = vec![vec![Vec::new(); windows[0].len()]; windows.len()];
    Oracle::load(&a, 128)
        .unwrap()
        .logits(&windows, |w, pos, row| logits[w][pos] = row)
        .unwrap();
    let path = dir.path().join("m.pack");
    let options = ImportOptions {
        profile,
        ..Default::default()
    };
    import_gguf(&b, &path, &options, &mut |_, _| {}).unwrap();
    let pack = Pack::open(&path).unwrap();
    assert_eq!(pack.manifest().info.architecture, int.arch);
    let mut engine = Engine::new(&pack, &CpuDevice::new(1).unwrap()).unwrap();
    let score = score(&mut engine, &windows, &logits, 0).unwrap();
    println!(
        "{} for {} {profile:?}: cosine {:.6}, KL {:.6}, top-1 {:.3}, perplexity {:.1} {:.1}, saturated {}",
        int.arch,
        float.arch,
        score.cosine(),
        score.kl(),
        score.same_top(),
        score.perplexity_float(),
        score.perplexity_int(),
        score.saturated()
    );
    score
}

/// Profile A: 16-bit activations, 8-bit weights and cache.
fn close_a(model: &Model) {
    let s = compare(model, model, Profile::A);
    assert!(s.cosine() > 0.999, "cosine {}", s.cosine());
    assert!(s.kl() < 0.01, "KL {}", s.kl());
    assert!(s.same_top() > 0.85, "top-1 {}", s.same_top());
    assert_eq!(s.saturated(), 0);
}

/// Profile B: rotated, 8-bit activations.
fn close_b(model: &Model) {
    let s = compare(model, model, Profile::B);
    assert!(s.cosine() > 0.998, "cosine {}", s.cosine());
    assert!(s.kl() < 0.02, "KL {}", s.kl());
    assert!(s.same_top() > 0.8, "top-1 {}", s.same_top());
    assert_eq!(s.saturated(), 0);
}

/// What a misread model looks like: the divergence is a multiple of the right one's.
fn far(float: &Model, int: &Model) {
    let (right, wrong) = (compare(float, float, Profile::A), compare(float, int, Profile::A));
    assert!(
        wrong.kl() > 5.0 * right.kl() && wrong.cosine() < 0.9985,
        "cosine {}, KL {} where the right one has {}",
        wrong.cosine(),
        wrong.kl(),
        right.kl()
    );
}

#[test]
fn llama_is_candles_llama() {
    let m = Model::new("llama", SIZE, 1);
    close_a(&m);
    close_b(&m);
}

#[test]
fn qwen2_is_candles_qwen2() {
    close_a(&qwen2());
    close_b(&qwen2());
}

#[test]
fn qwen3_is_candles_qwen3() {
    close_a(&qwen3());
    close_b(&qwen3());
}

#[test]
fn mistral_is_candles_mistral_beyond_its_window() {
    close_a(&mistral());
    close_b(&mistral());
    // One token more or less in the window shows, and so does none at all.
    for window in [5, 7, 128] {
        let mut other = mistral();
        other.set("attention.sliding_window", Value::U32(window));
        far(&mistral(), &other);
    }
    // Most files of the family name themselves llama and keep the field.
    let s = compare(&mistral(), &mistral().renamed("llama"), Profile::A);
    assert!(s.cosine() > 0.999);
}

#[test]
fn gemma3_is_candles_gemma3_with_both_kinds_of_layers() {
    close_a(&gemma3());
    let change = |key: &str, value: Value| {
        let mut other = gemma3();
        other.set(key, value);
        far(&gemma3(), &other);
    };
    change("attention.sliding_window", Value::U32(7));
    change("attention.sliding_window_pattern", Value::U32(5));
    change("rope.freq_base", Value::F32(10_000.0));
    change("rope.freq_base_swa", Value::F32(1_000_000.0));
}

#[test]
fn pairings_of_rope_are_not_interchangeable() {
    // The same tensors, read as Llama stores them (pairs side by side) and as Qwen does (half a head apart).
    let llama = Model::new("llama", SIZE, 1);
    let mut qwen = llama.renamed("qwen2");
    for l in 0..SIZE.layers {
        qwen.bias(&format!("blk.{l}.attn_q"), 64, 0.0);
        qwen.bias(&format!("blk.{l}.attn_k"), 32, 0.0);
        qwen.bias(&format!("blk.{l}.attn_v"), 32, 0.0);
    }
    far(&qwen, &llama);
    far(&llama, &qwen);
    close_a(&qwen);
}

/// Keeps what a run commits to.
#[derive(Default, PartialEq, Debug)]
struct Heard(Vec<Hash>, Vec<u32>);

impl Trace for Heard {
    fn bodies(&mut self, _: u32, bodies: &[Hash]) {
        self.0.extend(bodies);
    }

    fn sampled(&mut self, _: u32, token: u32) {
        self.1.push(token);
    }
}

#[test]
fn every_architecture_commits_to_the_same_bits_on_every_device_decoded_or_rechecked() {
    let dir = tempfile::tempdir().unwrap();
    let (gguf, path) = (dir.path().join("m.gguf"), dir.path().join("m.pack"));
    for model in [qwen2(), qwen3(), mistral(), gemma3()] {
        model.write(&gguf);
        import_gguf(&gguf, &path, &ImportOptions::default(), &mut |_, _| {}).unwrap();
        let pack = Pack::open(&path).unwrap();
        // Beyond the windows of 6, in prompt and answer.
        let prompt = &windows()[0][..12];
        let devices: [Box<dyn Device>; 3] = [
            Box::new(ReferenceDevice),
            Box::new(CpuDevice::new(1).unwrap()),
            Box::new(CpuDevice::new(3).unwrap()),
        ];
        let mut first: Option<(Vec<u32>, Heard)> = None;
        for device in &devices {
            let mut engine = Engine::new(&pack, device.as_ref()).unwrap();
            let mut decoded = Heard::default();
            let output = engine
                .generate(prompt, 10, &[], &Sampler::Greedy, &mut decoded, &mut |_| {})
                .unwrap();
            let mut again = Heard::default();
            let ids = engine
                .recheck(prompt, &output, &Sampler::Greedy, &mut again)
                .unwrap();
            assert_eq!(ids, output, "{}", model.arch);
            assert_eq!(again, decoded, "{}", model.arch);
            let now = (output, decoded);
            assert_eq!(
                first.get_or_insert_with(|| (now.0.clone(), again)),
                &now,
                "{}",
                model.arch
            );
        }
    }
}

#[test]
fn rejects_a_rotation_of_a_post_norm_model_and_what_a_family_must_have() {
    let refusal = |m: &Model, profile| {
        let dir = tempfile::tempdir().unwrap();
        let gguf = dir.path().join("m.gguf");
        m.write(&gguf);
        let options = ImportOptions {
            profile,
            ..Default::default()
        };
        import_gguf(&gguf, &dir.path().join("m.pack"), &options, &mut |_, _| {}).unwrap_err()
    };
    let got = refusal(&gemma3(), Profile::B);
    assert!(
        matches!(&got, ImportError::Unsupported { what } if what.contains("profile b for gemma3")),
        "{got}"
    );
    let mut unbiased = qwen2();
    unbiased.without("blk.1.attn_k.bias");
    let got = refusal(&unbiased, Profile::A);
    assert!(
        matches!(&got, ImportError::MissingTensor { name } if name == "blk.1.attn_k.bias"),
        "{got}"
    );
    let mut unnormed = qwen3();
    unnormed.without("blk.2.attn_q_norm.weight");
    let got = refusal(&unnormed, Profile::A);
    assert!(
        matches!(&got, ImportError::MissingTensor { name } if name == "blk.2.attn_q_norm.weight"),
        "{got}"
    );
    let mut windowed = qwen2();
    windowed.set("attention.sliding_window", Value::U32(64));
    let got = refusal(&windowed, Profile::A).to_string();
    assert!(got.contains("qwen2.attention.sliding_window = 64"), "{got}");
    let mut headed = gemma3();
    headed.weight("output", VOCAB, 64, 1.0);
    let got = refusal(&headed, Profile::A).to_string();
    assert!(got.contains("output.weight"), "{got}");
    let mut capped = gemma3();
    capped.set("final_logit_softcapping", Value::F32(30.0));
    let got = refusal(&capped, Profile::A).to_string();
    assert!(got.contains("final_logit_softcapping = 30"), "{got}");
}
