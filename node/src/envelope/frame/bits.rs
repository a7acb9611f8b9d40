//! Bits of zstd: forwards for table descriptions, backwards for what is coded with the tables (RFC 8878, 4.1).

/// Reads from the first byte's lowest bit on.
pub(super) struct Forward<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Forward<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `count` bits, at most 16, without taking them; `None` where fewer are left.
    pub(super) fn peek(&self, count: u32) -> Option<u32> {
        let fits = self.at + count as usize <= 8 * self.bytes.len();
        fits.then(|| window(self.bytes, self.at, count))
    }

    pub(super) fn skip(&mut self, count: u32) {
        self.at += count as usize;
    }

    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        let bits = self.peek(count)?;
        self.skip(count);
        Some(bits)
    }

    /// Bytes taken, the last one perhaps in part.
    pub(super) fn bytes_taken(&self) -> usize {
        self.at.div_ceil(8)
    }
}

/// Reads from below the highest set bit of the last byte downwards.
pub(super) struct Backward<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl<'a> Backward<'a> {
    /// `None` if there is no byte or the last one is zero: then no bit says where it begins.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let last = *bytes.last()?;
        let padding = last.leading_zeros() as usize + 1;
        (last != 0).then(|| Self {
            bytes,
            left: 8 * bytes.len() - padding,
        })
    }

    /// The next `count` bits, at most 32; `None` where fewer are left.
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        let left = self.left.checked_sub(count as usize)?;
        self.left = left;
        Some(window(self.bytes, left, count))
    }

    /// The next `count` bits without taking them; where fewer are left, zeros stand below them.
    pub(super) fn peek_padded(&self, count: u32) -> u32 {
        let have = self.left.min(count as usize);
        let missing = count - have as u32;
        window(self.bytes, self.left - have, have as u32) << missing
    }

    /// Whether every bit was taken, and none more.
    pub(super) fn is_spent(&self) -> bool {
        self.left == 0
    }
}

/// `count` bits (at most 32) from bit `at` on; bits beyond the end are zero.
fn window(bytes: &[u8], at: usize, count: u32) -> u32 {
    let first = at / 8;
    let mut word = [0; 8];
    let some = bytes.get(first..bytes.len().min(first + 8)).unwrap_or_default();
    word[..some.len()].copy_from_slice(some);
    let bits = (u64::from_le_bytes(word) >> (at % 8)) & ((1u64 << count) - 1);
    u32::try_from(bits).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_begins_at_the_lowest_bit() {
        let mut bits = Forward::new(&[0b1010_0110, 0b1]);
        assert_eq!(bits.take(3), Some(0b110));
        assert_eq!(bits.take(6), Some(0b1_10100));
        assert_eq!(bits.bytes_taken(), 2);
        assert_eq!(bits.take(7), Some(0));
        assert_eq!(bits.take(1), None);
    }

    #[test]
    fn backwards_begins_below_the_marker() {
        // 1 marks the beginning, then 0 1 1, then the lower byte.
        let mut bits = Backward::new(&[0b1100_0001, 0b0000_1011]).unwrap();
        assert_eq!(bits.take(3), Some(0b011));
        assert_eq!(bits.take(2), Some(0b11));
        assert_eq!(bits.peek_padded(8), 0b0000_0100);
        assert_eq!(bits.take(7), None);
        assert_eq!(bits.take(6), Some(1));
        assert!(bits.is_spent());
        assert!(Backward::new(&[1, 0]).is_none());
        assert!(Backward::new(&[]).is_none());
    }
}
