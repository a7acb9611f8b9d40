//! Encoders: a small BERT written as a folder of files, imported and run, against the same model in f64; and what an
//! import refuses.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, path::Path, sync::Mutex};

use bitai_kernels::{Device, Hash, ReferenceDevice, Trace, cpu::CpuDevice};
use bitai_model::{
    arch::encoder::F_ENCODER,
    engine::{Engine, EngineError},
    import::{ImportError, ImportOptions, import_encoder},
    pack::{Pack, Profile},
    tokenizer::Tokenizer,
};
use safetensors::{Dtype, serialize, tensor::TensorView};

const D: usize = 64;
const HEADS: usize = 4;
const FF: usize = 96;
const LAYERS: usize = 3;
const CONTEXT: usize = 24;
const WORDS: [&str; 12] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "sea", "is", "deep", "##er", "blue", "sky", ",",
];

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A reproducible number in -1..1.
fn noise(seed: usize) -> f32 {
    let hash = blake3::hash(&seed.to_le_bytes());
    f32::from(i16::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1]])) / 32768.0
}

fn model() -> Tensors {
    let mut t = Tensors::new();
    let mut seed = 0;
    let mut put = |name: String, shape: Vec<usize>, size: f32, centre: f32| {
        let n = shape.iter().product();
        let values = (0..n)
            .map(|_| {
                seed += 1;
                centre + size * noise(seed)
            })
            .collect();
        t.insert(name, (shape, values));
    };
    let e = |what: &str| format!("embeddings.{what}");
    put(e("word_embeddings.weight"), vec![WORDS.len(), D], 0.5, 0.0);
    put(e("position_embeddings.weight"), vec![CONTEXT, D], 0.2, 0.0);
    put(e("token_type_embeddings.weight"), vec![2, D], 0.1, 0.0);
    put(e("LayerNorm.weight"), vec![D], 0.3, 1.0);
    put(e("LayerNorm.bias"), vec![D], 0.1, 0.0);
    for l in 0..LAYERS {
        let name = |what: &str| format!("encoder.layer.{l}.{what}");
        for (what, n, k) in [
            ("attention.self.query", D, D),
            ("attention.self.key", D, D),
            ("attention.self.value", D, D),
            ("attention.output.dense", D, D),
            ("intermediate.dense", FF, D),
            ("output.dense", D, FF),
        ] {
            put(name(&format!("{what}.weight")), vec![n, k], 0.3, 0.0);
            put(name(&format!("{what}.bias")), vec![n], 0.1, 0.0);
        }
        for what in ["attention.output.LayerNorm", "output.LayerNorm"] {
            put(name(&format!("{what}.weight")), vec![D], 0.3, 1.0);
            put(name(&format!("{what}.bias")), vec![D], 0.1, 0.0);
        }
    }
    t
}

const CONFIG: &str = r#"{"model_type":"bert","hidden_act":"gelu","hidden_size":64,"num_attention_heads":4,
"num_hidden_layers":3,"intermediate_size":96,"vocab_size":12,"max_position_embeddings":24,"layer_norm_eps":1e-12}"#;

fn write(folder: &Path, tensors: &Tensors, config: &str) {
    let bytes: BTreeMap<&String, (Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, v))| {
            (
                name,
                (shape.clone(), v.iter().flat_map(|v| v.to_le_bytes()).collect()),
            )
        })
        .collect();
    let views: Vec<(&String, TensorView<'_>)> = bytes
        .iter()
        .map(|(name, (shape, b))| (*name, TensorView::new(Dtype::F32, shape.clone(), b).unwrap()))
        .collect();
    fs::write(folder.join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
    fs::write(folder.join("config.json"), config).unwrap();
    let vocab: serde_json::Map<_, _> = WORDS
        .iter()
        .enumerate()
        .map(|(id, w)| ((*w).to_owned(), id.into()))
        .collect();
    let tokenizer = serde_json::json!({
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "vocab": vocab},
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

fn import(folder: &Path) -> Result<Pack, ImportError> {
    let pack = folder.join("model.pack");
    import_encoder(folder, &pack, &ImportOptions::default(), &mut |_, _| {})?;
    Ok(Pack::open(&pack).unwrap())
}

fn made(change: impl FnOnce(&mut Tensors), config: &str) -> (tempfile::TempDir, Result<Pack, ImportError>) {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = model();
    change(&mut tensors);
    write(folder.path(), &tensors, config);
    let pack = import(folder.path());
    (folder, pack)
}

#[derive(Default)]
struct Roots(Mutex<Vec<Hash>>);

impl Trace for Roots {
    fn bodies(&mut self, first: u32, bodies: &[Hash]) {
        let roots = self.0.get_mut().unwrap();
        assert_eq!(first as usize, roots.len());
        roots.extend(bodies);
    }
    fn sampled(&mut self, _: u32, _: u32) {
        panic!("an encoder samples nothing");
    }
}

/// The model in f64, as Devlin et al. (2018) define it, mean-pooled and brought to length one.
fn oracle(t: &Tensors, ids: &[u32]) -> Vec<f64> {
    let get = |name: &str| -> Vec<f64> { t[name].1.iter().map(|v| f64::from(*v)).collect() };
    let linear = |name: &str, x: &[f64]| -> Vec<f64> {
        let (w, b) = (get(&format!("{name}.weight")), get(&format!("{name}.bias")));
        let rows = w.chunks(x.len()).zip(b);
        rows.map(|(w, b)| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + b)
            .collect()
    };
    let norm = |name: &str, x: &[f64]| -> Vec<f64> {
        let (g, b) = (get(&format!("{name}.weight")), get(&format!("{name}.bias")));
        let mean = x.iter().sum::<f64>() / D as f64;
        let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / D as f64;
        let all = x.iter().zip(g).zip(b);
        all.map(|((x, g), b)| (x - mean) / var.sqrt() * g + b).collect()
    };
    let add = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
    let row = |name: &str, i: usize| -> Vec<f64> { get(name)[i * D..(i + 1) * D].to_vec() };
    let mut h: Vec<Vec<f64>> = ids
        .iter()
        .enumerate()
        .map(|(pos, id)| {
            let x = row("embeddings.word_embeddings.weight", *id as usize);
            let x = add(&x, &row("embeddings.position_embeddings.weight", pos));
            norm(
                "embeddings.LayerNorm",
                &add(&x, &row("embeddings.token_type_embeddings.weight", 0)),
            )
        })
        .collect();
    for l in 0..LAYERS {
        let name = |what: &str| format!("encoder.layer.{l}.{what}");
        let project = |what: &str| -> Vec<Vec<f64>> { h.iter().map(|x| linear(&name(what), x)).collect() };
        let (q, k, v) = (
            project("attention.self.query"),
            project("attention.self.key"),
            project("attention.self.value"),
        );
        let hd = D / HEADS;
        let mixed: Vec<Vec<f64>> = (0..h.len())
            .map(|i| {
                let mut out = vec![0.0; D];
                for head in 0..HEADS {
                    let r = head * hd..(head + 1) * hd;
                    let dot = |j: usize| {
                        q[i][r.clone()]
                            .iter()
                            .zip(&k[j][r.clone()])
                            .map(|(a, b)| a * b)
                            .sum::<f64>()
                    };
                    let e: Vec<f64> = (0..h.len())
                        .map(|j| (dot(j) / (hd as f64).sqrt()).exp())
                        .collect();
                    let z: f64 = e.iter().sum();
                    for (e, v) in e.iter().zip(&v) {
                        for c in r.clone() {
                            out[c] += e / z * v[c];
                        }
                    }
                }
                out
            })
            .collect();
        for (h, a) in h.iter_mut().zip(&mixed) {
            let a = linear(&name("attention.output.dense"), a);
            *h = norm(&name("attention.output.LayerNorm"), &add(h, &a));
            let x: Vec<f64> = linear(&name("intermediate.dense"), h)
                .iter()
                .map(|x| 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt())))
                .collect();
            *h = norm(
                &name("output.LayerNorm"),
                &add(h, &linear(&name("output.dense"), &x)),
            );
        }
    }
    let sum = h.iter().fold(vec![0.0; D], |s, x| add(&s, x));
    let length = sum.iter().map(|v| v * v).sum::<f64>().sqrt();
    sum.iter().map(|v| v / length).collect()
}

#[test]
fn an_encoder_gives_the_float_models_direction_on_every_backend() {
    let (_folder, pack) = made(|_| {}, CONFIG);
    let pack = pack.unwrap();
    pack.verify(&mut |_, _| {}).unwrap();
    let devices: [&dyn Device; 4] = [
        &ReferenceDevice,
        &CpuDevice::new(1).unwrap(),
        &CpuDevice::new(3).unwrap(),
        &CpuDevice::portable(2).unwrap(),
    ];
    let long: Vec<u32> = (0..CONTEXT as u32).map(|i| i % WORDS.len() as u32).collect();
    for ids in [&[2, 4, 5, 6, 7, 8, 3][..], &[2, 3], &long] {
        let mut first: Option<(Vec<i32>, Vec<Hash>)> = None;
        for device in devices {
            let mut engine = Engine::new(&pack, device).unwrap();
            let mut roots = Roots::default();
            let row = engine.embed(ids, &mut roots).unwrap();
            let roots = roots.0.into_inner().unwrap();
            assert_eq!(
                (row.len(), roots.len()),
                (D, LAYERS),
                "a word an element, a root a layer"
            );
            let same = first.get_or_insert_with(|| (row.clone(), roots.clone()));
            assert_eq!(*same, (row, roots), "{}", device.info().name);
        }
        let (row, _) = first.unwrap();
        let real: Vec<f64> = row
            .iter()
            .map(|v| f64::from(*v) / f64::from(1u32 << F_ENCODER))
            .collect();
        let want = oracle(&model(), ids);
        let dot: f64 = real.iter().zip(&want).map(|(a, b)| a * b).sum();
        let length = real.iter().map(|v| v * v).sum::<f64>().sqrt();
        assert!((length - 1.0).abs() < 1e-3, "a unit vector, not {length}");
        assert!(dot / length > 0.999, "{ids:?}: cosine {dot}");
    }
}

#[test]
fn words_become_pieces_between_the_ends() {
    let (_folder, pack) = made(|_| {}, CONFIG);
    let pack = pack.unwrap();
    let tokenizer = Tokenizer::of(&pack).unwrap();
    assert_eq!(
        tokenizer.sentence("The SEA, deeper!").unwrap(),
        [2, 4, 5, 11, 7, 8, 1, 3]
    );
    assert_eq!(tokenizer.sentence("").unwrap(), [2, 3]);
}

#[test]
fn the_same_folder_gives_the_same_root_with_any_threads() {
    let (folder, pack) = made(|_| {}, CONFIG);
    let target = folder.path().join("again.pack");
    let options = ImportOptions {
        threads: 7,
        ..ImportOptions::default()
    };
    let again = import_encoder(folder.path(), &target, &options, &mut |_, _| {}).unwrap();
    assert_eq!(again.model_root, pack.unwrap().root());
}

#[test]
fn a_cut_context_keeps_the_first_positions() {
    let (folder, pack) = made(|_| {}, CONFIG);
    let target = folder.path().join("cut.pack");
    let options = ImportOptions {
        context: 8,
        ..ImportOptions::default()
    };
    import_encoder(folder.path(), &target, &options, &mut |_, _| {}).unwrap();
    let run = |pack: &Pack| {
        let mut engine = Engine::new(pack, &ReferenceDevice).unwrap();
        engine.embed(&[2, 5, 3], &mut Roots::default()).unwrap()
    };
    assert_eq!(run(&Pack::open(&target).unwrap()), run(&pack.unwrap()));
}

fn refused(change: impl FnOnce(&mut Tensors)) -> ImportError {
    made(change, CONFIG).1.err().unwrap()
}

#[test]
fn rejects_a_missing_tensor() {
    let e = refused(|t| drop(t.remove("encoder.layer.1.output.dense.bias")));
    assert!(
        matches!(e, ImportError::MissingTensor { ref name } if name == "encoder.layer.1.output.dense.bias"),
        "{e}"
    );
}

#[test]
fn rejects_a_misshapen_tensor() {
    let e =
        refused(|t| t.get_mut("encoder.layer.0.intermediate.dense.weight").unwrap().0 = vec![FF / 2, 2 * D]);
    assert!(
        e.to_string()
            .contains("encoder.layer.0.intermediate.dense.weight"),
        "{e}"
    );
}

#[test]
fn rejects_a_weight_that_is_not_a_number() {
    for bad in [f32::NAN, f32::INFINITY] {
        let name = "encoder.layer.2.attention.self.key.weight";
        let e = refused(|t| t.get_mut(name).unwrap().1[77] = bad);
        assert!(
            matches!(e, ImportError::NotFinite { name: ref n, index: 77, .. } if n == name),
            "{e}"
        );
    }
}

#[test]
fn rejects_a_tensor_that_nothing_reads() {
    let e = refused(|t| {
        drop(t.insert(
            "encoder.layer.3.output.dense.bias".into(),
            (vec![D], vec![0.0; D]),
        ))
    });
    assert!(matches!(e, ImportError::ExtraTensor { .. }), "{e}");
}

#[test]
fn rejects_a_truncated_file() {
    let (folder, _) = made(|_| {}, CONFIG);
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    for len in [0, 5, 100, bytes.len() - 1] {
        fs::write(&path, &bytes[..len]).unwrap();
        let e = import(folder.path()).err().unwrap();
        assert!(
            matches!(e, ImportError::Safetensors { .. } | ImportError::Truncated { .. }),
            "{len}: {e}"
        );
    }
}

#[test]
fn rejects_what_is_not_computed_by_name() {
    for (from, to, named) in [
        (r#""gelu""#, r#""relu""#, "relu"),
        (r#""bert""#, r#""mpnet""#, "mpnet"),
        (r#""hidden_size":64"#, r#""hidden_size":63"#, "63"),
        (
            r#""num_hidden_layers":3"#,
            r#""num_hidden_layers":0"#,
            "num_hidden_layers",
        ),
    ] {
        let (_folder, pack) = made(|_| {}, &CONFIG.replace(from, to));
        let e = pack.err().unwrap();
        assert!(e.to_string().contains(named), "{e}");
    }
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &model(), CONFIG);
    let options = ImportOptions {
        profile: Profile::B,
        ..ImportOptions::default()
    };
    let e = import_encoder(folder.path(), &folder.path().join("p"), &options, &mut |_, _| {}).unwrap_err();
    assert!(e.to_string().contains("profile b"), "{e}");
}

#[test]
fn rejects_jobs_of_the_other_kind_and_texts_that_do_not_fit() {
    let (_folder, pack) = made(|_| {}, CONFIG);
    let mut engine = Engine::new(&pack.unwrap(), &ReferenceDevice).unwrap();
    let sampler = bitai_kernels::Sampler::Greedy;
    let e = engine.generate(&[2, 3], 4, &[], &sampler, &mut Roots::default(), &mut |_| {});
    assert!(matches!(e, Err(EngineError::NotADecoder)));
    let e = engine.embed(&[], &mut Roots::default());
    assert!(matches!(e, Err(EngineError::EmptyInput)));
    let e = engine.embed(&[4; CONTEXT + 1], &mut Roots::default());
    assert!(matches!(e, Err(EngineError::ContextOverflow { .. })));
    let e = engine.embed(&[2, 99], &mut Roots::default());
    assert!(matches!(e, Err(EngineError::IdOutOfRange { id: 99, at: 1, .. })));
}
