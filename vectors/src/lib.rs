//! Golden vectors: what every rule of `docs/spec/tensor.md` gives, as JSON that Rust, CUDA and Solidity read.
//!
//! One file a group of rules, `{about, rules: {NAME: [case, ...]}}`, a case a line. Numbers of up to 32 bits
//! are JSON numbers, 64-bit ones are decimal strings, bytes are hex strings. The reference makes them;
//! `cargo run -p bitai-vectors -- generate` writes, `check` (and a test) compares.

mod arithmetic;
mod attention;
mod encoders;
mod hashes;
mod rows;
mod rowwise;
mod sampling;
mod step_ends;
mod steps;
mod whole;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// One file: its name, what it is about, and the cases of each rule.
pub struct File {
    /// Name without directory.
    pub name: &'static str,
    /// What the file holds and how to read a case.
    pub about: &'static str,
    /// Cases by rule.
    pub rules: Vec<(&'static str, Vec<Value>)>,
}

impl File {
    /// The file's text: an object with a case a line.
    pub fn render(&self) -> String {
        let rules: Vec<String> = self
            .rules
            .iter()
            .map(|(name, cases)| {
                let cases: Vec<String> = cases.iter().map(|c| format!("      {c}")).collect();
                format!("    \"{name}\": [\n{}\n    ]", cases.join(",\n"))
            })
            .collect();
        let about = Value::from(self.about);
        format!(
            "{{\n  \"about\": {about},\n  \"rules\": {{\n{}\n  }}\n}}\n",
            rules.join(",\n")
        )
    }
}

/// Every file, as the reference makes it now.
pub fn files() -> Result<Vec<File>> {
    let mut files = arithmetic::files();
    files.extend(rowwise::files());
    files.extend(attention::files());
    files.extend(encoders::files());
    files.extend(sampling::files());
    files.extend(hashes::files());
    files.extend(steps::files());
    files.extend(rows::files()?);
    files.extend(whole::files()?);
    Ok(files)
}

/// Where the files lie.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// Writes the files.
pub fn write(files: &[File], dir: &Path) -> Result<()> {
    for file in files {
        let path = dir.join(file.name);
        std::fs::write(&path, file.render()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Compares the committed files with what the reference makes; the number of cases.
pub fn compare(files: &[File], dir: &Path) -> Result<usize> {
    let mut cases = 0;
    for file in files {
        let path = dir.join(file.name);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}: run `bitai-vectors generate`", path.display()))?;
        let rendered = file.render();
        let lines = rendered.lines().zip(text.lines().chain(std::iter::repeat("")));
        if let Some((i, (want, got))) = lines.enumerate().find(|(_, (want, got))| want != got) {
            bail!(
                "{} line {}: the reference gives\n{want}\nthe file says\n{got}",
                path.display(),
                i + 1
            );
        }
        if rendered.len() != text.len() {
            bail!("{} goes on after the last case", path.display());
        }
        cases += file.rules.iter().map(|(_, c)| c.len()).sum::<usize>();
    }
    Ok(cases)
}
