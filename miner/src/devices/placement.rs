//! Which models go onto which device, by memory: each model somewhere first, then everywhere that it still fits.

/// Bytes that a model of so many bytes of weights needs: an eighth more for the least cache and what it computes in.
pub(super) fn need(weights: u64) -> u64 {
    weights.saturating_add(weights / 8)
}

/// For each device the models (by number) to load, in this order. `needs` are bytes of each model; `rooms` of each device,
/// none where it does not say. What fits nowhere is on no list.
pub(super) fn plan(needs: &[u64], rooms: &[Option<u64>]) -> Vec<Vec<usize>> {
    let mut left: Vec<u64> = rooms.iter().map(|room| room.unwrap_or(u64::MAX)).collect();
    let mut lists = vec![Vec::new(); rooms.len()];
    let mut largest: Vec<usize> = (0..needs.len()).collect();
    // The order given decides between equal ones.
    largest.sort_by_key(|&m| std::cmp::Reverse(needs[m]));
    for &model in &largest {
        // The emptiest device; the first of equal ones.
        let device = (0..left.len()).rev().max_by_key(|&d| left[d]);
        if let Some(d) = device.filter(|&d| needs[model] <= left[d]) {
            left[d] -= needs[model];
            lists[d].push(model);
        }
    }
    for &model in &largest {
        for (list, left) in lists.iter_mut().zip(&mut left) {
            if !list.contains(&model) && needs[model] <= *left {
                *left -= needs[model];
                list.push(model);
            }
        }
    }
    // The largest first: what comes later finds at least what it would find alone.
    for list in &mut lists {
        list.sort_by_key(|&m| (std::cmp::Reverse(needs[m]), m));
    }
    lists
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_fits_is_everywhere_and_the_rest_somewhere() {
        assert_eq!(plan(&[1, 2], &[None, None]), [vec![1, 0], vec![1, 0]]);
        // Two of 60 do not fit on one of 100: one each, and the small one beside both.
        assert_eq!(
            plan(&[60, 60, 30], &[Some(100), Some(100)]),
            [vec![0, 2], vec![1, 2]]
        );
        assert_eq!(plan(&[60, 150], &[Some(100)]), [vec![0]]);
    }

    proptest! {
        #[test]
        fn no_device_is_given_more_than_it_holds_and_no_model_twice(
            needs in prop::collection::vec(1u64..100, 0..6),
            rooms in prop::collection::vec(1u64..200, 1..5),
        ) {
            let rooms: Vec<_> = rooms.into_iter().map(Some).collect();
            let lists = plan(&needs, &rooms);
            for (list, room) in lists.iter().zip(&rooms) {
                prop_assert!(list.iter().map(|&m| needs[m]).sum::<u64>() <= room.unwrap());
                let mut once = list.clone();
                once.sort_unstable();
                once.dedup();
                prop_assert_eq!(once.len(), list.len());
            }
            // A model that is nowhere would not have fitted beside what is there.
            for (m, need) in needs.iter().enumerate() {
                if lists.iter().all(|list| !list.contains(&m)) {
                    for (list, room) in lists.iter().zip(&rooms) {
                        prop_assert!(need + list.iter().map(|&o| needs[o]).sum::<u64>() > room.unwrap());
                    }
                }
            }
        }
    }
}
