//! Where a file is, as a package index or a model hub says.

use reqwest::Url;
use serde::Deserialize;

use crate::exit::Failure;

use super::http::Http;

fn address(base: &str, path: &str) -> Result<Url, Failure> {
    let text = format!("{}/{path}", base.trim_end_matches('/'));
    text.parse()
        .map_err(|e| Failure::Usage(format!("URL `{text}`: {e}")))
}

/// The address of a package's file in an index with the pages of PEP 503.
pub(super) async fn wheel(http: &Http, index: &str, package: &str, file: &str) -> Result<Url, Failure> {
    let page = address(index, &format!("{package}/"))?;
    let text = http.text(&page, "text/html").await?;
    link(&text, file)
        .and_then(|to| page.join(to).ok())
        .ok_or_else(|| Failure::Download {
            url: page.to_string(),
            why: format!("it lists no {file}; set models.index_url to an index that does"),
        })
}

/// The target of the link to a file. Entities do not occur in the addresses of files.
fn link<'a>(page: &'a str, file: &str) -> Option<&'a str> {
    page.split("href=").skip(1).find_map(|rest| {
        let quote = rest.chars().next().filter(|c| "\"'".contains(*c))?;
        let to = rest[1..].split(quote).next()?;
        let path = to.split(['#', '?']).next()?;
        (path.rsplit('/').next() == Some(file)).then_some(to)
    })
}

/// What a hub says of a model.
#[derive(Deserialize)]
struct Repo {
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// The files of an encoder's folder.
pub(super) const ENCODER: [&str; 3] = ["config.json", "model.safetensors", "tokenizer.json"];

/// The files of a model of a hub to fetch: the named one, its only GGUF file, or an encoder's three.
pub(super) async fn files(
    http: &Http,
    hub: &str,
    repo: &str,
    named: Option<&str>,
) -> Result<Vec<(String, Url)>, Failure> {
    let there = |file: &str| address(hub, &format!("{repo}/resolve/main/{file}"));
    if let Some(file) = named {
        return Ok(vec![(file.to_owned(), there(file)?)]);
    }
    let page = address(hub, &format!("api/models/{repo}"))?;
    let text = http.text(&page, "application/json").await?;
    let listed: Repo = serde_json::from_str(&text).map_err(|e| Failure::Download {
        url: page.to_string(),
        why: format!("it lists no files: {e}"),
    })?;
    let names: Vec<String> = listed.siblings.into_iter().map(|s| s.rfilename).collect();
    choose(repo, &names)?
        .into_iter()
        .map(|file| Ok((file.clone(), there(&file)?)))
        .collect()
}

fn choose(repo: &str, names: &[String]) -> Result<Vec<String>, Failure> {
    let gguf: Vec<&String> = names
        .iter()
        .filter(|n| n.to_lowercase().ends_with(".gguf"))
        .collect();
    match gguf.as_slice() {
        [one] => Ok(vec![(*one).clone()]),
        [] if ENCODER.iter().all(|f| names.iter().any(|n| n == f)) => {
            Ok(ENCODER.iter().map(|f| (*f).to_owned()).collect())
        }
        [] => Err(Failure::Usage(format!(
            "hf:{repo} has no GGUF file, nor the three of an encoder ({}); look for the model's name with GGUF behind it",
            ENCODER.join(", ")
        ))),
        many => Err(Failure::Usage(format!(
            "hf:{repo} has several GGUF files; name one as hf:{repo}:FILE: {}",
            many.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_among_the_links_of_a_page() {
        let page = "<a href=\"../../x/a-1.whl#sha256=00\">a-1.whl</a> <a href='b-2.whl'>b</a> <a href=c>";
        assert_eq!(link(page, "a-1.whl"), Some("../../x/a-1.whl#sha256=00"));
        assert_eq!(link(page, "b-2.whl"), Some("b-2.whl"));
        assert_eq!(link(page, "1.whl"), None);
        assert_eq!(link("href=", "a"), None);
    }

    #[test]
    fn one_gguf_or_an_encoder_is_chosen_and_several_are_named() {
        let names = |n: &[&str]| n.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            choose("a/b", &names(&["README.md", "m.Q4.gguf"])).unwrap(),
            ["m.Q4.gguf"]
        );
        assert_eq!(choose("a/b", &names(&ENCODER)).unwrap().len(), 3);
        assert!(choose("a/b", &names(&["x.bin"])).is_err());
        let several = choose("a/b", &names(&["1.gguf", "2.gguf"]))
            .unwrap_err()
            .to_string();
        assert!(several.contains("1.gguf, 2.gguf"), "{several}");
    }
}
