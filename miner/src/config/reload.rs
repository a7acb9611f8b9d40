//! Changes of `config.toml` while a neuron runs: what can change is passed on, what cannot is said.

use std::time::Duration;

use tokio::{sync::watch, task::JoinHandle};

use super::{Layers, SETTINGS};
use crate::datadir::DataDir;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The layers as they are now, until this is dropped.
#[derive(Debug)]
pub struct Following {
    /// The newest sound state of the files.
    pub layers: watch::Receiver<Layers>,
    task: JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Follows the files of a data directory: on SIGHUP, and when a file's content has changed.
pub fn follow(data: &DataDir, layers: &Layers) -> Following {
    let (tell, receiver) = watch::channel(layers.clone());
    let (data, mut now) = (data.clone(), layers.clone());
    let task = tokio::spawn(async move {
        let mut seen = content(&data);
        let mut asked = hang_ups();
        loop {
            let was_asked = tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => false,
                Some(()) = asked.recv() => true,
            };
            let found = content(&data);
            if found == seen && !was_asked {
                continue;
            }
            seen = found;
            match now.again(&data) {
                Ok(next) => {
                    if say(&now, &next, was_asked) {
                        // Nobody listens any more where this fails; the task ends with its owner.
                        let _ = tell.send(next.clone());
                    }
                    now = next;
                }
                Err(e) => tracing::error!("{e}; the settings stay as they were"),
            }
        }
    });
    Following {
        layers: receiver,
        task,
    }
}

fn content(data: &DataDir) -> Option<Vec<u8>> {
    std::fs::read(data.config()).ok()
}

/// A word for each SIGHUP; none ever where the system has no such signal.
fn hang_ups() -> tokio::sync::mpsc::Receiver<()> {
    let (tell, receiver) = tokio::sync::mpsc::channel(1);
    #[cfg(unix)]
    tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut hang_up) = signal(SignalKind::hangup()) else {
            return;
        };
        while hang_up.recv().await.is_some() && tell.send(()).await.is_ok() {}
    });
    #[cfg(not(unix))]
    std::mem::forget(tell);
    receiver
}

/// Keys that differ, those of sections as `section.key`.
fn changed(before: &toml::Table, after: &toml::Table) -> Vec<String> {
    let flat = |table: &toml::Table| {
        let mut flat = std::collections::BTreeMap::new();
        for (key, value) in table {
            match value.as_table() {
                Some(section) => {
                    for (inner, value) in section {
                        flat.insert(format!("{key}.{inner}"), value.clone());
                    }
                }
                None => {
                    flat.insert(key.clone(), value.clone());
                }
            }
        }
        flat
    };
    let (before, after) = (flat(before), flat(after));
    let mut keys: Vec<String> = before.keys().chain(after.keys()).cloned().collect();
    keys.sort();
    keys.dedup();
    keys.retain(|k| before.get(k) != after.get(k));
    keys
}

/// Says what has changed; true where something did that counts while running.
fn say(before: &Layers, after: &Layers, was_asked: bool) -> bool {
    let keys = changed(&before.table, &after.table);
    if keys.is_empty() && was_asked {
        tracing::info!("config.toml says what it said before");
    }
    let mut counts = false;
    for key in &keys {
        if SETTINGS.iter().any(|s| s.live && s.key == key) {
            counts = true;
            tracing::info!("config.toml: {key} changed");
        } else {
            tracing::warn!("config.toml: {key} changed, which counts from the next start");
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_changed_file_is_passed_on_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::resolve(Some(dir.path().into())).unwrap();
        std::fs::write(data.config(), "ask_in = 5").unwrap();
        let mut following = follow(&data, &Layers::read(&data).unwrap());
        let ask = |l: &Layers| l.ask(&Default::default()).per_input;
        // The first look may come before or after this write: a broken file must not count either way.
        std::fs::write(data.config(), "ask_on = 6").unwrap();
        tokio::time::sleep(LOOK_EVERY * 2).await;
        assert_eq!(ask(&following.layers.borrow()), 5);
        std::fs::write(data.config(), "ask_in = 7").unwrap();
        tokio::time::timeout(Duration::from_secs(60), following.layers.changed())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(ask(&following.layers.borrow()), 7);
    }

    #[test]
    fn changes_are_named_by_key_also_inside_sections() {
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        let before = table("a = 1\nb = 2\n[s]\nc = 3\nd = 4");
        let after = table("a = 1\nb = 5\n[s]\nc = 4\nd = 4");
        assert_eq!(changed(&before, &after), ["b", "s.c"]);
    }
}
