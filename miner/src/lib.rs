//! The BitAI neuron: takes jobs, runs models on integers, proves and submits what it computed.
//!
//! `cli` is what was typed, `config` what was meant, `exit` how a command ends. `models`, `infer`, `bench`, `selftest`, `soundness`, `receipt` and
//! `verify` need no chain. `chain` talks to a node over JSON-RPC, `worker` is the neuron itself: it watches jobs,
//! keeps the `journal` and submits; `dispute` has both seats of a dispute; `monitor` shows what the worker does.
//! Nothing here depends on a node.

pub mod ask;
pub mod attest;
pub mod bench;
pub mod chain;
pub mod cli;
pub mod commands;
pub mod config;
pub mod datadir;
pub mod devices;
pub mod dispute;
pub mod embed;
pub mod engine;
pub mod exit;
pub mod fetch;
pub mod first;
pub mod gateway;
pub mod gpu;
pub mod health;
pub mod infer;
pub mod journal;
pub mod logs;
pub mod manual;
pub mod models;
pub mod monitor;
pub mod offers;
pub mod onboard;
pub mod payout;
pub mod progress;
pub mod published;
pub mod receipt;
pub mod registration;
pub mod selftest;
pub mod soundness;
pub mod space;
pub mod stake;
pub mod status;
pub mod verify;
pub mod wallet;
pub mod worker;

pub use exit::Failure;
