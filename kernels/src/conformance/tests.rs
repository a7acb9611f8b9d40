//! The suite on the reference itself, and proof that it can fail.

use std::sync::Arc;

use super::*;
use crate::{
    Device, DeviceInfo, HostTensor, KernelError, Program, ReferenceDevice, Runner,
    interp::Interp,
    ops::{AttentionParams, HostWeight, KvSpan, Ops, QuantRows},
    program::{RopeStyle, SiteId},
    reference::ReferenceOps,
    testing::{Fault, FaultyDevice},
};

#[test]
fn the_reference_agrees_with_itself_in_every_way_of_running() {
    let n = run(&ReferenceDevice).unwrap();
    assert!(n > 100, "{n}");
}

#[test]
fn one_wrong_integer_at_any_site_is_found_and_named() {
    let case = Shape::SMALL.build("faults");
    for (i, site) in case.program.sites.iter().enumerate() {
        let op = &site.op;
        if matches!(op, crate::Op::KvAppend { .. } | crate::Op::Out) {
            continue;
        }
        let fault = Fault {
            site: i as SiteId,
            position: 0,
            element: 1,
        };
        match check_case(&FaultyDevice::new(ReferenceOps, fault), &case) {
            Err(Mismatch::Site { site, .. }) => assert_eq!(site as usize, i, "{op:?}"),
            other => panic!("site {i} {op:?}: {other:?}"),
        }
    }
}

/// Takes every sequence of a batch for the first.
struct OneSequence;

/// Counts positions from the start of each step.
struct NoPast;

impl Ops for OneSequence {
    type Weight = HostWeight;

    fn load_weight(&self, weight: HostWeight) -> Result<HostWeight, KernelError> {
        ReferenceOps.load_weight(weight)
    }

    fn embed(&self, weight: &HostWeight, ids: &[u32], f_out: u8, out: &mut [i32]) {
        ReferenceOps.embed(weight, ids, f_out, out);
    }

    fn linear(&self, weight: &HostWeight, x: &QuantRows, f_out: u8, out: &mut [i32]) {
        ReferenceOps.linear(weight, x, f_out, out);
    }

    fn attention(&self, p: AttentionParams, q: &QuantRows, spans: &[KvSpan<'_>], out: &mut [i32]) {
        let wrong: Vec<_> = spans
            .iter()
            .map(|s| KvSpan {
                rows: spans[spans.len() - 1].rows,
                ..*s
            })
            .collect();
        ReferenceOps.attention(p, q, &wrong, out);
    }
}

impl Ops for NoPast {
    type Weight = HostWeight;

    fn load_weight(&self, weight: HostWeight) -> Result<HostWeight, KernelError> {
        ReferenceOps.load_weight(weight)
    }

    fn embed(&self, weight: &HostWeight, ids: &[u32], f_out: u8, out: &mut [i32]) {
        ReferenceOps.embed(weight, ids, f_out, out);
    }

    fn linear(&self, weight: &HostWeight, x: &QuantRows, f_out: u8, out: &mut [i32]) {
        ReferenceOps.linear(weight, x, f_out, out);
    }

    fn rope(&self, table: &[i16], d: usize, style: RopeStyle, positions: &[u32], x: &[i32], out: &mut [i32]) {
        let wrong: Vec<u32> = positions.iter().map(|p| p - positions[0]).collect();
        ReferenceOps.rope(table, d, style, &wrong, x, out);
    }
}

/// A device over any arithmetic.
struct Over<O>(fn() -> O);

impl<O: Ops> Device for Over<O> {
    fn info(&self) -> DeviceInfo {
        ReferenceDevice.info()
    }

    fn load(&self, program: Arc<Program>, tensors: &[HostTensor]) -> Result<Box<dyn Runner>, KernelError> {
        Ok(Box::new(Interp::load((self.0)(), program, tensors)?))
    }
}

#[test]
fn a_device_that_mixes_sequences_up_is_found_in_a_batch() {
    let found = check_case(&Over(|| OneSequence), &Shape::SMALL.build("mixed up"));
    assert!(
        matches!(
            found,
            Err(Mismatch::Result {
                how: "in a batch",
                ..
            })
        ),
        "{found:?}"
    );
}

#[test]
fn a_device_that_forgets_the_past_is_found_token_by_token() {
    let found = check_case(&Over(|| NoPast), &Shape::SMALL.build("forgetful"));
    assert!(
        matches!(
            found,
            Err(Mismatch::Result {
                how: "token by token",
                ..
            })
        ),
        "{found:?}"
    );
}
