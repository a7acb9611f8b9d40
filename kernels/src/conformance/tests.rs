//! The suite on the reference itself, and proof that it can fail.

use super::*;
use crate::{
    ReferenceDevice,
    program::SiteId,
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
