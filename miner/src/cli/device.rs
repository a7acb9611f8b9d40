//! Where to compute, and the commands that look at a device alone, as typed.

use clap::{Args, ValueEnum};

use super::Profile;

/// Which processor, and how much of it.
#[derive(Debug, Clone, Args)]
pub struct DeviceArgs {
    /// Processor [default: `run`: auto; else cpu]
    #[arg(long, value_enum, env = "BITAI_DEVICE")]
    pub device: Option<DeviceKind>,
    /// Threads [default: all]
    #[arg(long, env = "BITAI_THREADS")]
    pub threads: Option<usize>,
    /// Which GPUs: numbers or PCI addresses (`0000:01:00`), separated by commas, or `all` [default: `run`: all; else the first]
    #[arg(long, env = "BITAI_GPU", value_name = "GPUS")]
    pub gpu: Option<crate::gpu::List>,
}

/// The backends this build has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// The CPU, with the best instructions it has
    #[default]
    Cpu,
    /// The CPU with plain loops: slower, and what a processor without vector instructions runs
    #[value(name = "cpu-portable")]
    #[serde(rename = "cpu-portable")]
    CpuPortable,
    /// The plain loops of the spec: slow, and what every other backend is compared with
    Reference,
    /// NVIDIA GPUs
    Cuda,
    /// GPUs where there are any, else the CPU
    Auto,
}

/// `selftest`
#[derive(Debug, Args)]
pub struct SelftestArgs {
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// `bench`
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Measure a model that was imported
    #[arg(long, conflicts_with_all = ["shape", "profile"])]
    pub model: Option<String>,
    /// Measure a model of this shape, made from a seed
    #[arg(long, value_enum, default_value = "0.5b")]
    pub shape: crate::bench::Named,
    /// Numeric profile of the shape
    #[arg(long, value_enum, default_value_t = Profile::B)]
    pub profile: Profile,
    /// Prompt lengths
    #[arg(long, value_delimiter = ',', default_value = "512", value_name = "TOKENS")]
    pub prompt: Vec<u32>,
    /// Tokens to decode
    #[arg(long, value_delimiter = ',', default_value = "64", value_name = "TOKENS")]
    pub decode: Vec<u32>,
    /// Sequences that decode side by side
    #[arg(long, value_delimiter = ',', default_value = "1,8", value_name = "SEQUENCES")]
    pub batch: Vec<u32>,
    /// Repetitions of each test
    #[arg(long, default_value_t = 3)]
    pub repeat: u32,
    /// Repetitions before them that do not count
    #[arg(long, default_value_t = 1)]
    pub warm_up: u32,
    /// Leave out the runs without hashing that show what hashing costs
    #[arg(long)]
    pub no_compare: bool,
    /// What this machine costs an hour; adds the cost of a million tokens
    #[arg(long, value_name = "PRICE")]
    pub price_per_hour: Option<f64>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: crate::bench::Format,
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
}
