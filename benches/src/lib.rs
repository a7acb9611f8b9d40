//! Benches, the quality report and peer comparisons.
