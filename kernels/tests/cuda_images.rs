//! Whether the committed GPU images belong to the committed kernels, on any machine: no compiler and no GPU needed.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use serde_json::Value;

/// Sources by name, and what `scripts/cuda-kernels` wrote about the images.
fn sources() -> (Vec<(String, Vec<u8>)>, Value) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
    let mut files: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|f| f.unwrap().path())
        .filter(|f| f.extension().is_some_and(|e| e == "h" || e == "cu"))
        .map(|f| {
            (
                f.file_name().unwrap().to_str().unwrap().to_string(),
                fs::read(f).unwrap(),
            )
        })
        .collect();
    files.sort();
    let about = fs::read_to_string(dir.join("bin/kernels.json")).unwrap();
    (files, serde_json::from_str(&about).unwrap())
}

#[test]
fn the_images_were_compiled_from_these_sources() {
    let (files, about) = sources();
    let mut hash = blake3::Hasher::new();
    for (name, content) in &files {
        hash.update(name.as_bytes());
        hash.update(&[0]);
        hash.update(&(content.len() as u64).to_le_bytes());
        hash.update(content);
    }
    let hash = hash.finalize().to_hex();
    assert_eq!(
        about["sources"].as_str().unwrap(),
        hash.as_str(),
        "kernels/cuda changed after its images were compiled: run scripts/cuda-kernels and commit kernels/cuda/bin"
    );
}

#[test]
fn the_images_are_the_ones_that_were_described() {
    let (_, about) = sources();
    let images = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda/bin/kernels.bin")).unwrap();
    assert_eq!(
        about["images"].as_str().unwrap(),
        blake3::hash(&images).to_hex().as_str()
    );
}

#[test]
fn every_source_is_compiled() {
    let (files, _) = sources();
    let module = files.iter().find(|(name, _)| name == "module.cu").unwrap();
    let module = String::from_utf8(module.1.clone()).unwrap();
    for (name, _) in files
        .iter()
        .filter(|(name, _)| name.ends_with(".cu") && name != "module.cu")
    {
        assert!(
            module.contains(&format!("#include \"{name}\"")),
            "{name} is not in module.cu"
        );
    }
}

#[test]
fn every_kernel_was_compiled_for_every_generation() {
    let (_, about) = sources();
    let kernels = about["kernels"].as_object().unwrap();
    assert!(kernels.len() >= 14);
    for (kernel, used) in kernels {
        let targets: Vec<_> = used.as_object().unwrap().keys().map(String::as_str).collect();
        for target in [
            "sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_103a", "sm_120",
        ] {
            assert!(targets.contains(&target), "{kernel} lacks {target}");
        }
    }
}
