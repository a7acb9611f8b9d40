//! The leaves of attention: one key's score and share, and the units and the largest score of a head.

use bitai_kernels::{
    Op,
    num::Scale,
    reference::attention::{QueryFactor, exp, exponent, key_score, value_factor, weight},
    rows::{kv_record_len, kv_record_offset},
};

use super::{
    DisputeError, Judge,
    inner::{Side, quant_from_bytes},
    leaf::Step,
    levels::{part_len, part_of},
    msg::{At, KeyOpening, KeyShare, KeysAnswer, KvSide, one_scale},
};

/// What one opened key gives: its score by the published unit, and V.
struct Key {
    score: i32,
    factor: QueryFactor,
    k_scale: Scale,
    v_scale: Scale,
    value: i8,
}

impl Key {
    /// The exponent that counts for a unit.
    fn exponent(&self, side: KvSide) -> Option<i16> {
        exponent(match side {
            KvSide::K => self.k_scale,
            KvSide::V => self.v_scale,
        })
    }
}

impl Judge {
    /// What the defendant published of a head.
    fn head(&self, at: At) -> Result<&KeysAnswer, DisputeError> {
        self.published
            .keys
            .get(&at)
            .ok_or(DisputeError::Unpublished("the sums over keys"))
    }

    /// Opens a key's record under the claimed root and the query's head, and scores it.
    fn open_key(&self, at: At, key: &KeyOpening) -> Result<Key, DisputeError> {
        let Op::Attention {
            heads,
            kv_heads,
            head_dim,
            scale_m,
            scale_e,
            ..
        } = *self.op(at.site)?
        else {
            return Err(DisputeError::Kind("not an attention"));
        };
        let range = self.keys_range(at)?;
        if !range.contains(&key.key) {
            return Err(DisputeError::Range {
                what: "key",
                got: key.key.into(),
                count: range.end.into(),
            });
        }
        let layer = self.program.sites[at.site as usize]
            .layer
            .ok_or(DisputeError::Kind("attention outside a layer"))?;
        let (head, element) = (at.element / head_dim, (at.element % head_dim) as usize);
        let d = head_dim as usize;
        let kv_head = (head / (heads / kv_heads)) as usize;
        let start = kv_record_offset(kv_head, d) as u64;
        let bytes = key.kv.verify(
            self.claimed,
            &self.header,
            self.output_count(),
            (key.key, layer),
            self.units.kv_row_len,
            start..start + kv_record_len(d) as u64,
        )?;
        let (k, v) = bytes.split_at(kv_record_len(d) / 2);
        let input = self.input(at.site, 0)?;
        let commit = self.opened(at.pos, input, &key.q.site)?;
        let elements = head * head_dim..(head + 1) * head_dim;
        let q = self.range_bytes(input, &commit, Side::Data, &key.q.range, elements)?;
        let q_scale = self.range_bytes(input, &commit, Side::Scales, &key.q_scale, head..head + 1)?;
        let k_ints: Vec<i8> = k[..d].iter().map(|b| b.cast_signed()).collect();
        let q_ints = quant_from_bytes(self.planes(input), &q);
        let k_unit = self.head(at)?.k_unit.map(|u| u.value);
        let k_scale = one_scale(&k[d..]);
        let site_scale = Scale {
            m: scale_m,
            e: scale_e,
        };
        let (score, factor) = key_score(&q_ints, one_scale(&q_scale), site_scale, &k_ints, k_scale, k_unit);
        Ok(Key {
            score,
            factor,
            k_scale,
            v_scale: one_scale(&v[d..]),
            value: v[element].cast_signed(),
        })
    }

    /// One key's published share, weight and value.
    pub(super) fn key(&self, at: At, key: &KeyOpening) -> Step {
        let Op::Attention { p_bits, .. } = *self.op(at.site)? else {
            return Err(DisputeError::Kind("not an attention"));
        };
        let head = self.head(at)?;
        let opened = self.open_key(at, key)?;
        let range = self.keys_range(at)?;
        let len = part_len(range.end - range.start);
        let part = (key.key - range.start) / len;
        let in_part = (key.key - part_of(&range, len, part).start) as usize;
        let claimed = self
            .published
            .key_parts
            .get(&(at, part))
            .and_then(|p| p.get(in_part))
            .ok_or(DisputeError::Unpublished("the part with this key"))?;
        let share = exp(opened.score, head.max.value, opened.factor);
        let factor = value_factor(opened.v_scale, head.v_unit.map(|u| u.value), p_bits);
        let right = KeyShare {
            exp: share,
            weight: weight(share, factor, key.key, p_bits),
            value: opened.value,
        };
        Ok((right == *claimed, "one key's probability and value"))
    }

    /// "Not attained": whether the published largest score is that of its own key.
    pub(super) fn max_attained(&self, at: At, key: &KeyOpening) -> Step {
        let max = self.head(at)?.max;
        let opened = self.open_key(at, key)?;
        if max.at != key.key {
            return Err(DisputeError::Kind("the opened key is not the published one"));
        }
        Ok((opened.score == max.value, "the largest score is attained"))
    }

    /// "Exceeded by j": whether the published largest score bounds another key.
    pub(super) fn max_bounds(&self, at: At, key: &KeyOpening) -> Step {
        let max = self.head(at)?.max;
        let opened = self.open_key(at, key)?;
        Ok((opened.score <= max.value, "the largest score bounds every key"))
    }

    /// "Not attained": whether a published unit is the exponent of its own key's scale.
    pub(super) fn unit_attained(&self, at: At, side: KvSide, key: &KeyOpening) -> Step {
        let unit = self
            .head(at)?
            .unit(side)
            .ok_or(DisputeError::Kind("no such unit is published"))?;
        let opened = self.open_key(at, key)?;
        if unit.at != key.key {
            return Err(DisputeError::Kind("the opened key is not the published one"));
        }
        let right = opened.exponent(side) == Some(unit.value);
        Ok((right, "a unit is the exponent of its key's scale"))
    }

    /// "Exceeded by j": whether a published unit bounds another key's exponent.
    pub(super) fn unit_bounds(&self, at: At, side: KvSide, key: &KeyOpening) -> Step {
        let unit = self.head(at)?.unit(side).map(|u| u.value);
        let opened = self.open_key(at, key)?;
        Ok((
            opened.exponent(side) <= unit,
            "a unit bounds every key's exponent",
        ))
    }
}
