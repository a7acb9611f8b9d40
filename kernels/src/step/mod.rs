//! TENSOR_STEP: one small integer step of the tensor spec as a pure function over bytes, so that a judge, a
//! precompile and a contract execute the same leaf of a dispute. Layouts: `docs/spec/poc.md`, section 9.
//!
//! Only `crate::reference` computes here. Every input is defined: a value that no honest party writes (a hostile
//! scale, exponent, maximum or sum) gives a result, and an input of another shape than its kind's an error.

mod attention;
mod element;
mod kind;
mod linear;
mod norm;
mod quant;
mod read;
mod sample;
#[cfg(test)]
mod tests;

use thiserror::Error;

pub use kind::Kind;
use read::Reader;

/// Most multiply-adds, parts, ids or elements that one step takes where a row is cut in parts.
pub const PART_MAX: usize = 256;

/// Why an input is no step.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StepError {
    /// No bytes at all.
    #[error("the input is empty; its first byte names the step")]
    Empty,
    /// A first byte that names no step.
    #[error("no step has number {0:#04x}; the numbers are in docs/spec/poc.md, section 9")]
    Kind(u8),
    /// Fewer or more bytes than the layout has.
    #[error("{kind}: {got} bytes, its layout needs {need}{}", if got < need { " or more" } else { "" })]
    Length {
        /// The step.
        kind: Kind,
        /// Bytes given.
        got: usize,
        /// Bytes that the fields read so far need.
        need: usize,
    },
    /// A field outside of what its layout admits.
    #[error("{kind}: {field} is {got}, it must be {must}")]
    Field {
        /// The step.
        kind: Kind,
        /// The field.
        field: &'static str,
        /// Its value.
        got: u64,
        /// What it must be.
        must: &'static str,
    },
}

/// Executes one step: the first byte of the input is its [`Kind`], the rest that kind's layout.
pub fn execute(input: &[u8]) -> Result<Vec<u8>, StepError> {
    let (number, _) = input.split_first().ok_or(StepError::Empty)?;
    let kind = Kind::from_number(*number).ok_or(StepError::Kind(*number))?;
    let mut r = Reader::new(kind, input);
    let out = match kind {
        Kind::LinearPart => linear::part(&mut r),
        Kind::LinearFinish => linear::finish(&mut r),
        Kind::WeightBounds => linear::bounds(&mut r),
        Kind::KeyUnit => attention::unit(&mut r),
        Kind::KeyScore => attention::score(&mut r),
        Kind::KeyShare => attention::share(&mut r),
        Kind::KeySums => attention::sums(&mut r),
        Kind::AttentionFinish => attention::finish(&mut r),
        Kind::Magnitude => quant::magnitude(&mut r),
        Kind::QuantScale => quant::scale(&mut r),
        Kind::QuantElement => quant::element(&mut r),
        Kind::Probability => sample::probability(&mut r),
        Kind::IdSums => sample::sums(&mut r),
        Kind::IdTotal => sample::total(&mut r),
        Kind::Draw => sample::draw(&mut r),
        Kind::Greedy => sample::greedy(&mut r),
        Kind::Embed => element::embed(&mut r),
        Kind::Add => element::add(&mut r),
        Kind::Glu => element::glu(&mut r),
        Kind::Act => element::act(&mut r),
        Kind::Rope => element::rope(&mut r),
        Kind::KvRecord => element::kv_record(&mut r),
        Kind::Squares => norm::squares(&mut r),
        Kind::RmsElement => norm::element(&mut r),
        Kind::Sum => norm::sum(&mut r),
        Kind::Centred => norm::centred(&mut r),
        Kind::CentredSquares => norm::centred_squares(&mut r),
        Kind::LayerElement => norm::layer_element(&mut r),
        Kind::PoolMean => norm::pool_mean(&mut r),
    }?;
    r.end()?;
    Ok(out)
}
