//! What every plan builds with: the list of sites and the ids of tensors, in order.

use bitai_kernels::{
    Op, Site, TensorId,
    program::{SiteId, Weight},
};

use crate::import::number;

/// Most layers between committed residual rows.
pub(super) const CHECKPOINT_STRIDE: u32 = 16;
/// Bits of an attention weight, whatever the context: 23 err less, but by less than int8 K and V cost up to the
/// 131,072 keys that a program may have (ADR 37), and need a second pass over V.
pub(super) const P_BITS: u8 = 15;

/// The sites so far.
pub(super) struct Sites {
    list: Vec<Site>,
    next_tensor: TensorId,
    /// The layer that sites are added to.
    pub(super) layer: Option<u32>,
    /// Fraction bits of what is quantised.
    f_act: u8,
}

impl Sites {
    /// None yet; `f_act` is the format of what [`Sites::quant`] reads.
    pub(super) fn new(f_act: u8) -> Self {
        Self {
            list: Vec::new(),
            next_tensor: 0,
            layer: None,
            f_act,
        }
    }

    /// The list.
    pub(super) fn into_list(self) -> Vec<Site> {
        self.list
    }

    /// One more site.
    pub(super) fn add(&mut self, op: Op, inputs: &[SiteId]) -> SiteId {
        self.list.push(Site {
            layer: self.layer,
            op,
            inputs: inputs.to_vec(),
        });
        // A program has a few thousand sites.
        (self.list.len() - 1) as SiteId
    }

    /// The next tensor's id.
    pub(super) fn tensor(&mut self) -> TensorId {
        self.next_tensor += 1;
        self.next_tensor - 1
    }

    /// The ids of a weight: `.q`, `.scale`, then `.mult` and `.bias` where present.
    pub(super) fn weight(&mut self, grouped: bool, bias: bool) -> Weight {
        Weight {
            q: self.tensor(),
            scale: self.tensor(),
            mult: grouped.then(|| self.tensor()),
            bias: bias.then(|| self.tensor()),
        }
    }

    /// A quantisation in groups of `group`, after a transform in blocks of `wht` (0: none).
    pub(super) fn quant(&mut self, planes: u8, wht: u16, group: u32, input: SiteId) -> SiteId {
        let op = Op::Quant {
            planes,
            wht,
            group,
            f_in: self.f_act,
        };
        self.add(op, &[input])
    }

    /// `n` rows of `k` weights times a quantised row.
    pub(super) fn linear(&mut self, weight: Weight, n: u32, k: u32, f_out: u8, input: SiteId) -> SiteId {
        let op = Op::Linear {
            weight,
            n,
            k,
            k_segments: 1,
            f_out,
        };
        self.add(op, &[input])
    }
}

/// Whether rows of `k` weights are a whole number of groups.
pub(super) fn can_group(k: u32) -> bool {
    (k as usize).is_multiple_of(number::GROUP)
}

/// What a norm adds to the mean square of numbers with `f` fraction bits.
pub(super) fn norm_eps(eps: f64, f: u8) -> u64 {
    // eps is below 1 and 2^(2 f) at most 2^60.
    (eps * number::pow2(2 * i32::from(f))).round_ties_even() as u64
}

/// log2(e) / divisor, and / block where both sides are transformed (an unnormalised transform multiplies the
/// dot product by its block), as a spec scale.
pub(super) fn attention_scale(divisor: f64, wht: u16) -> (u16, i16) {
    let block = f64::from(wht.max(1));
    number::scale(core::f64::consts::LOG2_E / divisor / block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_scale_is_log2_e_over_root_d() {
        let (m, e) = attention_scale(8.0, 64);
        let value = f64::from(m) * number::pow2(i32::from(e));
        assert!((value * 8.0 * 64.0 - core::f64::consts::LOG2_E).abs() < 1e-4);
    }

    #[test]
    fn a_weight_takes_an_id_for_what_it_has() {
        let mut sites = Sites::new(16);
        let plain = sites.weight(false, false);
        assert_eq!((plain.q, plain.scale, plain.mult, plain.bias), (0, 1, None, None));
        let full = sites.weight(true, true);
        assert_eq!(
            (full.q, full.scale, full.mult, full.bias),
            (2, 3, Some(4), Some(5))
        );
        assert_eq!(sites.tensor(), 6);
    }
}
