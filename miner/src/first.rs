//! `bitai-miner` without anything: what it found on this machine, and what to do next. Nothing is written, and nothing
//! that is missing is an error.

use std::{fmt::Write, path::PathBuf, time::Duration};

use crate::{
    chain::Node,
    cli::{ChainArgs, Cli},
    config::Layers,
    datadir::DataDir,
    health::{Machine, gib, holds, look_within},
    models, wallet,
};

/// Longest that driver and node are waited for, side by side.
const PATIENCE: Duration = Duration::from_millis(1_200);

/// What there is.
struct Found {
    machine: Option<Machine>,
    /// The data directory with its settings, or why there is none.
    home: Result<(DataDir, Layers), String>,
    node: String,
}

/// Looks, and prints.
pub async fn run(cli: &Cli) {
    print!("{}", look(cli.data_dir.clone()).await.text());
}

async fn look(data_dir: Option<PathBuf>) -> Found {
    let home = DataDir::resolve(data_dir)
        .and_then(|data| Ok((Layers::read(&data)?, data)))
        .map(|(layers, data)| (data, layers))
        .map_err(|e| e.to_string());
    let layers = home
        .as_ref()
        .map_or_else(|_| Layers::default(), |(_, l)| l.clone());
    let (machine, node) = tokio::join!(look_within(PATIENCE), node(&layers));
    Found { machine, home, node }
}

async fn node(layers: &Layers) -> String {
    let chain = layers.chain(&ChainArgs::default());
    let asked = async {
        let node = Node::connect(&chain).await.ok()?;
        let height = node.height().await.ok()?;
        Some(format!(
            "{} on chain {}, height {height}",
            node.url(),
            node.chain_id()
        ))
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Some(words)) => words,
        _ => format!("none answers at {}", chain.nodes.join(", ")),
    }
}

impl Found {
    fn text(&self) -> String {
        let mut out = format!("bitai-miner {}\n\n", env!("CARGO_PKG_VERSION"));
        self.machine_text(&mut out);
        let has_model = self.home_text(&mut out);
        let _ = writeln!(out, "node       {}", self.node);
        let has_gpu = self
            .machine
            .as_ref()
            .is_some_and(|m| m.gpus.as_ref().is_ok_and(|g| !g.is_empty()));
        let device = if has_gpu { " --device cuda" } else { "" };
        let _ = writeln!(out, "\nNext:");
        let mut next = |command: &str, words: &str| {
            let _ = writeln!(out, "  {command:<42} {words}");
        };
        next(
            &format!("bitai-miner bench{device}"),
            "how fast this machine is; needs no chain, wallet or model",
        );
        if !has_model {
            next("bitai-miner models pull smollm2", "a small model to begin with");
        }
        next(
            "bitai-miner doctor",
            "what is missing to earn, and how to mend it",
        );
        next(
            "bitai-miner run --dry-run",
            "what mining would do; without --dry-run it does",
        );
        next(
            "bitai-miner run --devnet",
            "beside a devnet (scripts/devnet --no-neuron): key, coins, stake, and mines",
        );
        next("bitai-miner --help", "everything else");
        out
    }

    fn machine_text(&self, out: &mut String) {
        let Some(machine) = &self.machine else {
            let _ = writeln!(
                out,
                "driver     the NVIDIA driver does not answer; bitai-miner doctor waits longer for it"
            );
            return;
        };
        match &machine.gpus {
            Err(why) => {
                let _ = writeln!(out, "driver     {why}");
            }
            Ok(gpus) if gpus.is_empty() => {
                let _ = writeln!(
                    out,
                    "GPU        none with an NVIDIA driver (525 or newer); the processor computes"
                );
            }
            Ok(gpus) => {
                for g in gpus {
                    let free = g
                        .memory_free
                        .map_or_else(String::new, |f| format!(", {} free", gib(f)));
                    let _ = writeln!(
                        out,
                        "GPU {:<6} {}  {}  {}{free}",
                        g.index,
                        g.pci,
                        g.name,
                        gib(g.memory)
                    );
                }
                let version = machine.driver.as_deref().unwrap_or("of unknown version");
                let _ = writeln!(out, "driver     NVIDIA {version}");
            }
        }
        let memory = match (machine.memory, machine.memory_free) {
            (Some(all), Some(free)) => format!(", {} memory, {} free", gib(all), gib(free)),
            _ => String::new(),
        };
        let _ = writeln!(out, "processor  {} cores{memory}", machine.cores);
    }

    /// True where there is a model.
    fn home_text(&self, out: &mut String) -> bool {
        let (data, _) = match &self.home {
            Ok(home) => home,
            Err(why) => {
                let _ = writeln!(out, "settings   {why}");
                return false;
            }
        };
        let _ = writeln!(out, "data       {}", data.root().display());
        let mut has_model = false;
        match models::list(data) {
            Ok(all) if all.is_empty() => {
                let _ = writeln!(out, "models     none");
            }
            Ok(all) => {
                for model in all {
                    match model {
                        Ok(m) => {
                            has_model = true;
                            let place = self.place(&m);
                            let _ = writeln!(out, "model      {}, {}{place}", m.name, gib(m.bytes));
                        }
                        Err(e) => {
                            let _ = writeln!(out, "model      {e}");
                        }
                    }
                }
            }
            Err(e) => {
                let _ = writeln!(out, "models     {e}");
            }
        }
        match wallet::list(data) {
            Ok(keys) if keys.is_empty() => {
                let _ = writeln!(out, "keys       none; bitai-miner wallet new makes one");
            }
            Ok(keys) => {
                for key in keys {
                    let _ = writeln!(out, "key        {}  {}", key.name, key.address);
                }
            }
            Err(e) => {
                let _ = writeln!(out, "keys       {e}");
            }
        }
        has_model
    }

    /// Which GPUs hold a model.
    fn place(&self, model: &models::Listed) -> String {
        let gpus = self.machine.iter().flat_map(|m| m.gpus.iter().flatten());
        let fits: Vec<String> = gpus
            .filter(|g| holds(g.memory, model))
            .map(|g| g.index.to_string())
            .collect();
        if fits.is_empty() {
            String::new()
        } else {
            format!(", fits GPU {}", fits.join(", "))
        }
    }
}
