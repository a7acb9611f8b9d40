//! Ranges of heights as typed.

/// A range of BitAI heights, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heights {
    /// First height.
    pub from: u64,
    /// Last height; none = the newest.
    pub to: Option<u64>,
}

impl std::str::FromStr for Heights {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no range of heights; write FROM..TO, or FROM.. up to the newest");
        let (from, to) = text.split_once("..").ok_or_else(bad)?;
        let from = from.parse().map_err(|_| bad())?;
        let to: Option<u64> = match to {
            "" => None,
            to => Some(to.parse().map_err(|_| bad())?),
        };
        if to.is_some_and(|to| to < from) {
            return Err(format!("`{text}` ends before it begins"));
        }
        Ok(Self { from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_are_two_numbers_or_open_at_the_end() {
        let both = |from, to| Ok(Heights { from, to });
        assert_eq!("3..9".parse(), both(3, Some(9)));
        assert_eq!("3..".parse(), both(3, None));
        for bad in ["", "3", "..", "..4", "9..3", "a..b", "1..2..3"] {
            assert!(bad.parse::<Heights>().is_err(), "{bad}");
        }
    }
}
