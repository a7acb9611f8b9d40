//! Model packs: import, tokenizer, and the transformer as a program over kernels.
