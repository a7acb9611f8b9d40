//! Folding a rotation into the weights at import (profile B): the residual is rotated by an orthogonal
//! signed Hadamard matrix R, so that its outliers spread over all elements and 8-bit activations suffice.
//!
//! A linear y = W x of a normed residual becomes W diag(gain) R^T x', one that writes the residual becomes
//! R W; the norm's own gain becomes 1, since RMS does not change under R. V and the attention output are
//! rotated head by head in the same way, and the down projection is transformed to match the run-time
//! Walsh-Hadamard transform of its input.

use crate::{
    arch::{Description, Role, wht_block},
    pack::Profile,
};

/// What an import folds; nothing for profile A.
pub(crate) struct Fold {
    rotation: Option<Rotated>,
}

struct Rotated {
    residual: Rotation,
    head: usize,
    down: usize,
}

impl Fold {
    /// The fold of a profile for a model.
    pub(crate) fn new(profile: Profile, model: &Description) -> Self {
        Self {
            rotation: (profile == Profile::B).then(|| Rotated {
                residual: Rotation::new(model.d_model as usize),
                head: usize::from(wht_block(model.head_dim).max(1)),
                down: usize::from(wht_block(model.d_ff).max(1)),
            }),
        }
    }

    /// Whether head and embedding stop being one tensor (the head takes the last norm's gain).
    pub(crate) fn unties(&self) -> bool {
        self.rotation.is_some()
    }

    /// Gains that stay in a norm: all ones where they were folded (`folds`: the norm reads the residual).
    pub(crate) fn gain_left(&self, folds: bool, gain: &[f64]) -> Vec<f64> {
        if folds && self.rotation.is_some() {
            vec![1.0; gain.len()]
        } else {
            gain.to_vec()
        }
    }

    /// Whether [`Fold::left`] does anything for that role.
    pub(crate) fn mixes_rows(&self, role: Role) -> bool {
        self.rotation.is_some() && matches!(role, Role::AttnOut | Role::Down | Role::Value)
    }

    /// Multiplies the whole weight `[n, k]` from the left.
    pub(crate) fn left(&self, role: Role, w: &mut [f64], k: usize) {
        let Some(r) = &self.rotation else { return };
        let mut column = vec![0.0; w.len() / k];
        for c in 0..k {
            for (i, v) in column.iter_mut().enumerate() {
                *v = w[i * k + c];
            }
            match role {
                Role::AttnOut | Role::Down => r.residual.apply(&mut column),
                Role::Value => hadamard(&mut column, r.head),
                _ => {}
            }
            for (i, v) in column.iter().enumerate() {
                w[i * k + c] = *v;
            }
        }
    }

    /// Multiplies one row (over the input side) from the right, with the gain before it.
    pub(crate) fn right(&self, role: Role, gain: Option<&[f64]>, row: &mut [f64]) {
        let Some(r) = &self.rotation else { return };
        if let Some(gain) = gain {
            for (w, g) in row.iter_mut().zip(gain) {
                *w *= g;
            }
        }
        match role {
            Role::Embed | Role::QueryKey | Role::Value | Role::GateUp | Role::Head => r.residual.apply(row),
            Role::AttnOut => hadamard(row, r.head),
            Role::Down => {
                // At run time the input is transformed without the 1 / sqrt(block).
                hadamard(row, r.down);
                let root = (r.down as f64).sqrt();
                row.iter_mut().for_each(|w| *w /= root);
            }
        }
    }

    /// Rotates a bias with its rows.
    pub(crate) fn bias(&self, role: Role, bias: &mut [f64]) {
        if let (Some(r), Role::Value) = (&self.rotation, role) {
            hadamard(bias, r.head);
        }
    }
}

/// x -> R x with R = (B (x) H_2^k) diag(signs) / sqrt(n): n = m * 2^k, B an m x m Hadamard matrix of Paley's
/// where there is one for n's odd part (m = 12, 20, 28, 36, 44, 60 ...), else the identity on odd-many blocks.
struct Rotation {
    signs: Vec<f64>,
    block: usize,
    /// m x m matrix of +-1, row-major; empty for m = 1 or where there is none.
    base: Vec<f64>,
}

impl Rotation {
    fn new(n: usize) -> Self {
        let m = n >> n.trailing_zeros();
        // A Hadamard matrix has an order of 4 * odd at least: the base takes two powers of two back.
        let base = if m > 1 && m < 64 && n.is_multiple_of(4 * m) {
            paley(4 * m)
        } else {
            None
        };
        let (block, base) = match base {
            Some(base) => (n / (4 * m), base),
            None => (n / m, Vec::new()),
        };
        // Signs from a fixed seed: bit i of BLAKE3's stream.
        let mut bytes = vec![0; n.div_ceil(8)];
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"bitai/rotation/v0");
        hasher.finalize_xof().fill(&mut bytes);
        let signs = (0..n)
            .map(|i| {
                if bytes[i / 8] >> (i % 8) & 1 == 0 {
                    1.0
                } else {
                    -1.0
                }
            })
            .collect();
        Self { signs, block, base }
    }

    fn apply(&self, x: &mut [f64]) {
        for (x, s) in x.iter_mut().zip(&self.signs) {
            *x *= s;
        }
        hadamard(x, self.block);
        if self.base.is_empty() {
            return;
        }
        let m = x.len() / self.block;
        let root = (m as f64).sqrt();
        let mut old = vec![0.0; m];
        for i in 0..self.block {
            for (j, o) in old.iter_mut().enumerate() {
                *o = x[j * self.block + i];
            }
            for (j, row) in self.base.chunks(m).enumerate() {
                let sum = row.iter().zip(&old).fold(0.0, |sum, (b, o)| sum + b * o);
                x[j * self.block + i] = sum / root;
            }
        }
    }
}

/// Orthonormal Walsh-Hadamard transform of every `block` elements, Sylvester order.
fn hadamard(x: &mut [f64], block: usize) {
    let root = (block as f64).sqrt();
    for x in x.chunks_exact_mut(block) {
        let mut h = 1;
        while h < block {
            for pair in x.chunks_exact_mut(2 * h) {
                let (a, b) = pair.split_at_mut(h);
                for (a, b) in a.iter_mut().zip(b) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            h *= 2;
        }
        x.iter_mut().for_each(|v| *v /= root);
    }
}

/// Paley's Hadamard matrices (J. Math. Phys. 12, 1933): the first construction where q = m - 1 is a prime
/// 3 mod 4 (12, 20, 44), else the second where q = m / 2 - 1 is a prime 1 mod 4 (28, 36); else none.
fn paley(m: usize) -> Option<Vec<f64>> {
    let prime = |q: usize| q > 2 && (2..q).all(|d| !q.is_multiple_of(d));
    let character = |a: usize, q: usize| -> f64 {
        let a = a % q;
        if a == 0 {
            0.0
        } else if (1..q).any(|x| x * x % q == a) {
            1.0
        } else {
            -1.0
        }
    };
    let (q, second) = match (m - 1, m / 2 - 1) {
        (q, _) if q % 4 == 3 && prime(q) => (q, false),
        (_, q) if q % 4 == 1 && prime(q) => (q, true),
        _ => return None,
    };
    // The bordered conference matrix: skew for q = 3 mod 4, symmetric for q = 1 mod 4.
    let size = q + 1;
    let mut c = vec![0.0; size * size];
    for i in 0..size {
        for j in 0..size {
            c[i * size + j] = match (i, j) {
                (0, 0) => 0.0,
                (0, _) => 1.0,
                (_, 0) => {
                    if second {
                        1.0
                    } else {
                        -1.0
                    }
                }
                _ => character(q + i - j, q),
            };
        }
    }
    let identity = |i: usize, j: usize| f64::from(u8::from(i == j));
    if !second {
        return Some((0..m * m).map(|at| c[at] + identity(at / m, at % m)).collect());
    }
    let entries = (0..m * m).map(|at| {
        let (i, j) = (at / m, at % m);
        let (a, b) = (c[(i % size) * size + j % size], identity(i % size, j % size));
        match (i < size, j < size) {
            (true, true) => a + b,
            (false, false) => -a - b,
            _ => a - b,
        }
    });
    Some(entries.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_matrices_are_hadamard() {
        assert_eq!(paley(52), None, "51 is no prime, 25 neither");
        for m in [12, 20, 28, 36, 44] {
            let h = paley(m).unwrap();
            assert!(h.iter().all(|v| v.abs() == 1.0), "{m}");
            for i in 0..m {
                for j in 0..m {
                    let dot: f64 = (0..m).map(|k| h[i * m + k] * h[j * m + k]).sum();
                    assert_eq!(dot, if i == j { m as f64 } else { 0.0 }, "{m}: rows {i} {j}");
                }
            }
        }
    }

    #[test]
    fn rotations_keep_dot_products() {
        for n in [64, 576, 96, 40, 112, 22] {
            let r = Rotation::new(n);
            let a: Vec<f64> = (0..n).map(|i| libm::sin(i as f64)).collect();
            let b: Vec<f64> = (0..n).map(|i| libm::cos(2.0 * i as f64)).collect();
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let before = (dot(&a, &a), dot(&a, &b));
            let (mut ra, mut rb) = (a.clone(), b.clone());
            r.apply(&mut ra);
            r.apply(&mut rb);
            assert!(
                (dot(&ra, &ra) - before.0).abs() < 1e-9 && (dot(&ra, &rb) - before.1).abs() < 1e-9,
                "{n}"
            );
            assert!(n == 22 || ra != a);
        }
    }
}
