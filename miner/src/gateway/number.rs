//! Decimal numbers of a request as Q16, from their text: no float lies between what was sent and what is hashed.

/// Most significant digits that are read.
const DIGITS_MAX: usize = 32;
/// Largest exponent, either way, that is read as written.
const EXPONENT_MAX: i32 = 1_000;
/// Largest value: as of the command line's `--temperature`.
const WHOLE_MAX: u64 = 16;

/// A JSON number's text (`0.7`, `7e-1`) as Q16, the nearest one, halves upwards: `floor(x * 65536 + 1/2)`, computed on
/// the digits as written. Refuses negative numbers, more than 32 digits and values above 16.
pub fn q16(text: &str) -> Result<u32, &'static str> {
    const NONE: &str = "is no number";
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) {
        return Err(NONE);
    }
    // Zeros in front and behind say nothing: 0.70 is 0.7.
    let (whole, part) = (whole.trim_start_matches('0'), part.trim_end_matches('0'));
    let all = format!("{whole}{part}");
    let all = all.trim_start_matches('0');
    if all.is_empty() {
        return Ok(0);
    }
    if negative {
        return Err("is negative");
    }
    if all.len() > DIGITS_MAX {
        return Err("has more than 32 digits");
    }
    let exponent: i32 = match exponent.strip_prefix('+').unwrap_or(exponent).parse() {
        Ok(e) => e,
        Err(_) => return Err(NONE),
    };
    // value = digits * 10^scale; part is shorter than DIGITS_MAX plus the zeros of a small number.
    let behind = i32::try_from(part.len()).map_err(|_| "has more than 32 digits")?;
    let scale = exponent.clamp(-EXPONENT_MAX, EXPONENT_MAX).saturating_sub(behind);
    let mut value: u128 = all.parse().map_err(|_| NONE)?;
    if scale >= 0 {
        for _ in 0..scale {
            value = value.saturating_mul(10);
            if value > u128::from(WHOLE_MAX) {
                return Err("is above 16");
            }
        }
        return q16_of(value << 16);
    }
    // Twice the value in Q16, so that the half that rounding adds is an integer: below 10^32 * 2^17 < 2^124.
    value <<= 17;
    // Dividing by ten at a time and dropping the rest does not change the floor of the whole division.
    for _ in 0..scale.unsigned_abs() {
        value /= 10;
        if value == 0 {
            return Ok(0);
        }
    }
    q16_of(value.div_ceil(2))
}

fn q16_of(value: u128) -> Result<u32, &'static str> {
    u32::try_from(value)
        .ok()
        .filter(|v| u64::from(*v) <= WHOLE_MAX << 16)
        .ok_or("is above 16")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_become_the_nearest_q16_of_their_text() {
        for (text, q) in [
            ("0", 0),
            ("-0.0", 0),
            ("0e999999", 0),
            ("1", 65536),
            ("1.0", 65536),
            ("0.7", 45875),
            ("7e-1", 45875),
            ("70E-2", 45875),
            ("0.07e+1", 45875),
            ("1.6e1", 16 << 16),
            ("2", 2 << 16),
            // 0.1 + 0.2 as Python writes it.
            ("0.30000000000000004", 19661),
            // Half of the smallest step is rounded up, a little less is not.
            ("0.00000762939453125", 1),
            ("0.00000762939453124", 0),
            ("1e-300", 0),
            ("0.0000000000000000000000000000000000000001", 0),
        ] {
            assert_eq!(q16(text), Ok(q), "{text}");
        }
    }

    #[test]
    fn rejects_what_is_negative_too_large_too_long_or_no_number() {
        for (text, why) in [
            ("-0.1", "is negative"),
            ("16.1", "is above 16"),
            ("1e2", "is above 16"),
            ("1e999999", "is above 16"),
            ("0.123456789012345678901234567890123", "has more than 32 digits"),
            ("", "is no number"),
            (".5", "is no number"),
            ("true", "is no number"),
            ("\"1\"", "is no number"),
            ("1e", "is no number"),
            ("1e99999999999", "is no number"),
        ] {
            assert_eq!(q16(text), Err(why), "{text}");
        }
    }

    proptest! {
        #[test]
        fn it_is_the_command_lines_reading_for_what_both_take(micros in 0u64..=16_000_000) {
            let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
            prop_assert_eq!(q16(&text).ok(), crate::cli::q16(&text).ok());
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9.eE]{0,40}|.{0,20}") {
            let _ = q16(&text);
        }
    }
}
