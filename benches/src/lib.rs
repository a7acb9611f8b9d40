//! Benches, the quality report and peer comparisons.

pub mod corpus;
pub mod oracle;
pub mod rss;
pub mod score;
