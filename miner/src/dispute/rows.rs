//! Rows that a run was asked for once are kept: games about several positions of one claim take turns, and every
//! position costs a prefill.

use bitai_kernels::Hash;
use bitai_poc::{
    LayerRows,
    dispute::{DisputeError, Regenerate, TokenRows, inner::SiteRow},
};

/// Most positions whose rows are kept.
const POSITIONS: usize = 64;
/// Most bytes of them: some fifteen positions of an 8B model.
const BYTES: usize = 256 << 20;

/// Keeps the rows of the positions asked about last.
pub struct Kept<R> {
    inner: R,
    /// Used last at the end.
    rows: Vec<(u32, TokenRows, usize)>,
    most: (usize, usize),
}

impl<R> Kept<R> {
    /// Nothing yet.
    pub fn new(inner: R) -> Self {
        Self::bounded(inner, (POSITIONS, BYTES))
    }

    /// The same with other bounds: positions, bytes. The last one asked about is kept whatever it takes.
    fn bounded(inner: R, most: (usize, usize)) -> Self {
        Self {
            inner,
            rows: Vec::new(),
            most,
        }
    }

    fn is_full(&self) -> bool {
        let bytes: usize = self.rows.iter().map(|(_, _, bytes)| bytes).sum();
        self.rows.len() > 1 && (self.rows.len() > self.most.0 || bytes > self.most.1)
    }
}

/// Bytes of a position's rows, in memory.
fn bytes(rows: &TokenRows) -> usize {
    let of = |row: &SiteRow| match row {
        SiteRow::Acts(values) => values.len() * 4,
        SiteRow::Quant { data, scales, .. } => data.len() * 2 + scales.len() * 4,
        SiteRow::Kv(bytes) => bytes.len(),
        SiteRow::Token(_) => 4,
    };
    let held = |row: &Option<SiteRow>| size_of::<SiteRow>() + row.as_ref().map_or(0, of);
    rows.0.iter().map(held).sum()
}

impl<R: Regenerate> Regenerate for Kept<R> {
    fn token(&mut self, pos: u32) -> Result<TokenRows, DisputeError> {
        let kept = match self.rows.iter().position(|(at, ..)| *at == pos) {
            Some(i) => self.rows.remove(i),
            None => {
                let rows = self.inner.token(pos)?;
                let bytes = bytes(&rows);
                (pos, rows, bytes)
            }
        };
        let rows = kept.1.clone();
        self.rows.push(kept);
        while self.is_full() {
            self.rows.remove(0);
        }
        Ok(rows)
    }

    fn kv(&mut self, pos: u32, layer: u32) -> Result<Vec<u8>, DisputeError> {
        self.inner.kv(pos, layer)
    }

    fn layer(&mut self, layer: u32) -> Result<Vec<LayerRows>, DisputeError> {
        self.inner.layer(layer)
    }

    fn pooled(&mut self) -> Result<Vec<Hash>, DisputeError> {
        self.inner.pooled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says which positions were computed.
    #[derive(Default)]
    struct Counts(Vec<u32>);

    impl Regenerate for Counts {
        fn token(&mut self, pos: u32) -> Result<TokenRows, DisputeError> {
            self.0.push(pos);
            Ok(TokenRows(vec![Some(SiteRow::Acts(vec![0; 100 * pos as usize]))]))
        }

        fn kv(&mut self, _: u32, _: u32) -> Result<Vec<u8>, DisputeError> {
            Ok(Vec::new())
        }
    }

    fn computed(most: (usize, usize), asked: &[u32]) -> Vec<u32> {
        let mut kept = Kept::bounded(Counts::default(), most);
        for pos in asked {
            assert_eq!(
                kept.token(*pos).unwrap().row(0),
                Some(&SiteRow::Acts(vec![0; 100 * *pos as usize]))
            );
        }
        kept.inner.0
    }

    #[test]
    fn the_position_used_longest_ago_goes_first() {
        let all = usize::MAX;
        assert_eq!(computed((2, all), &[1, 2, 1, 2, 1]), [1, 2]);
        assert_eq!(computed((2, all), &[1, 2, 1, 3, 1, 2]), [1, 2, 3, 2]);
        // Rows of 1 and 2 fit, beside those of 3 neither does.
        assert_eq!(computed((9, 1500), &[1, 2, 1, 2, 3, 2]), [1, 2, 3, 2]);
        assert_eq!(
            computed((9, 10), &[3, 3, 3]),
            [3],
            "the last one stays however large"
        );
    }
}
