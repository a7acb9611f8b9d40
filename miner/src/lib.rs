//! The GPU neuron: takes jobs, runs models on integers, proves and submits them.
