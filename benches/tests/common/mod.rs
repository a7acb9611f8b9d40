//! Small models of every architecture, written as GGUF (version 3) by hand: seeded float32 weights, a
//! vocabulary of bytes, the fields that each family's files carry.

use std::path::Path;

/// A field's value.
#[derive(Clone)]
pub(crate) enum Value {
    U32(u32),
    F32(f32),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
}

/// A model in the making.
#[derive(Clone)]
pub(crate) struct Model {
    /// GGUF's architecture and prefix of fields.
    pub(crate) arch: String,
    fields: Vec<(String, Value)>,
    /// Name, shape with the outermost first, values.
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    seed: u64,
}

/// What the models here differ in.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) layers: usize,
    pub(crate) d: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) d_ff: usize,
}

/// Ids: 256 bytes and two controls.
pub(crate) const VOCAB: usize = 258;

impl Model {
    /// Llama's blocks under the name `arch`, with a head of its own.
    pub(crate) fn new(arch: &str, size: Size, seed: u64) -> Self {
        let mut model = Self {
            arch: arch.into(),
            fields: Vec::new(),
            tensors: Vec::new(),
            seed,
        };
        model.set_global("general.architecture", Value::Text(arch.into()));
        for (key, v) in [
            ("block_count", size.layers),
            ("context_length", 128),
            ("embedding_length", size.d),
            ("feed_forward_length", size.d_ff),
            ("attention.head_count", size.heads),
            ("attention.head_count_kv", size.kv_heads),
            ("attention.key_length", size.head_dim),
            ("attention.value_length", size.head_dim),
        ] {
            model.set(key, Value::U32(v as u32));
        }
        model.set("attention.layer_norm_rms_epsilon", Value::F32(1e-6));
        model.set("rope.freq_base", Value::F32(10_000.0));
        model.vocabulary();
        model.weight("token_embd", VOCAB, size.d, 1.0);
        model.weight("output", VOCAB, size.d, 3.0 / (size.d as f32).sqrt());
        model.gain("output_norm", size.d);
        let (q, kv) = (size.heads * size.head_dim, size.kv_heads * size.head_dim);
        // Scores of a few units, so that attention is sharp and positions matter.
        let root = |k: usize, gain: f32| gain / (k as f32).sqrt();
        for l in 0..size.layers {
            model.gain(&format!("blk.{l}.attn_norm"), size.d);
            model.gain(&format!("blk.{l}.ffn_norm"), size.d);
            for (name, n, k, gain) in [
                ("attn_q", q, size.d, 1.7),
                ("attn_k", kv, size.d, 1.7),
                ("attn_v", kv, size.d, 1.0),
                ("attn_output", size.d, q, 1.0),
                ("ffn_gate", size.d_ff, size.d, 1.0),
                ("ffn_up", size.d_ff, size.d, 1.0),
                ("ffn_down", size.d, size.d_ff, 1.0),
            ] {
                model.weight(&format!("blk.{l}.{name}"), n, k, root(k, gain));
            }
        }
        model
    }

    fn vocabulary(&mut self) {
        let mut tokens: Vec<String> = (0u32..256)
            .map(|b| char::from_u32(0x100 + b).unwrap().to_string())
            .collect();
        tokens.extend(["<s>".to_owned(), "</s>".to_owned()]);
        let mut types = vec![1; 256];
        types.extend([3, 3]);
        self.set_global("tokenizer.ggml.model", Value::Text("gpt2".into()));
        self.set_global("tokenizer.ggml.pre", Value::Text("qwen2".into()));
        self.set_global("tokenizer.ggml.tokens", Value::Texts(tokens));
        self.set_global("tokenizer.ggml.token_type", Value::I32s(types));
    }

    fn set_global(&mut self, key: &str, value: Value) {
        self.fields.retain(|(k, _)| k != key);
        self.fields.push((key.into(), value));
    }

    /// A field under the architecture's prefix.
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        self.set_global(&format!("{}.{key}", self.arch), value);
    }

    /// The same model under another architecture's name.
    pub(crate) fn renamed(&self, arch: &str) -> Self {
        let mut other = self.clone();
        let prefix = format!("{}.", self.arch);
        for (key, _) in &mut other.fields {
            if let Some(rest) = key.strip_prefix(&prefix) {
                *key = format!("{arch}.{rest}");
            }
        }
        other.arch = arch.into();
        other.set_global("general.architecture", Value::Text(arch.into()));
        other
    }

    /// Leaves a tensor out: a tied head.
    pub(crate) fn without(&mut self, name: &str) {
        self.tensors.retain(|(n, ..)| n != name);
    }

    /// Nearly normal numbers with deviation 1.
    fn noise(&mut self, count: usize) -> Vec<f32> {
        let mut next = || {
            self.seed = self
                .seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.seed >> 40) as f32 / 16_777_216.0 - 0.5
        };
        // The variance of a sum of 12 uniforms is 1.
        (0..count).map(|_| (0..12).map(|_| next()).sum()).collect()
    }

    /// A weight `[n, k]` of that deviation.
    pub(crate) fn weight(&mut self, name: &str, n: usize, k: usize, deviation: f32) {
        let v = self.noise(n * k).into_iter().map(|x| x * deviation).collect();
        self.put(&format!("{name}.weight"), vec![n, k], v);
    }

    /// Gains around 1.
    pub(crate) fn gain(&mut self, name: &str, n: usize) {
        let v = self.noise(n).into_iter().map(|x| 1.0 + 0.3 * x).collect();
        self.put(&format!("{name}.weight"), vec![n], v);
    }

    /// A bias of that deviation.
    pub(crate) fn bias(&mut self, name: &str, n: usize, deviation: f32) {
        let v = self.noise(n).into_iter().map(|x| x * deviation).collect();
        self.put(&format!("{name}.bias"), vec![n], v);
    }

    fn put(&mut self, name: &str, shape: Vec<usize>, values: Vec<f32>) {
        self.without(name);
        self.tensors.push((name.into(), shape, values));
    }

    /// Writes the file.
    pub(crate) fn write(&self, path: &Path) {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.fields.len() as u64).to_le_bytes());
        for (key, value) in &self.fields {
            text(&mut out, key);
            field(&mut out, value);
        }
        let mut offset = 0u64;
        for (name, shape, values) in &self.tensors {
            text(&mut out, name);
            out.extend((shape.len() as u32).to_le_bytes());
            // GGUF counts dimensions from the innermost.
            for n in shape.iter().rev() {
                out.extend((*n as u64).to_le_bytes());
            }
            // Type 0 is f32.
            out.extend(0u32.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += (values.len() as u64 * 4).next_multiple_of(32);
        }
        for (_, _, values) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        }
        std::fs::write(path, out).unwrap();
    }
}

fn text(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

fn field(out: &mut Vec<u8>, value: &Value) {
    let mut list = |kind: u32, len: usize| {
        out.extend(9u32.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend((len as u64).to_le_bytes());
    };
    match value {
        Value::U32(v) => {
            out.extend(4u32.to_le_bytes());
            out.extend(v.to_le_bytes());
        }
        Value::F32(v) => {
            out.extend(6u32.to_le_bytes());
            out.extend(v.to_le_bytes());
        }
        Value::Text(s) => {
            out.extend(8u32.to_le_bytes());
            text(out, s);
        }
        Value::Texts(all) => {
            list(8, all.len());
            all.iter().for_each(|s| text(out, s));
        }
        Value::I32s(all) => {
            list(5, all.len());
            out.extend(all.iter().flat_map(|v| v.to_le_bytes()));
        }
    }
}
