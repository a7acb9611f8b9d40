//! A whole BitAI devnet in one command: node, funded accounts, contracts and one neuron.
