//! Golden vectors and their generator: every backend and the contracts read these.
