//! Proof of Compute: transcript, commitment, openings, verification and dispute steps.
