// The leaves of attention: units and largest score of a head, single keys, and the sums that they make. Rules A2 to A9.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Blob} from "../libraries/Blob.sol";
import {Bytes} from "../libraries/Bytes.sol";
import {Commitment, Dispute} from "./Published.sol";
import {GroupLeaves} from "./GroupLeaves.sol";
import {Merkle} from "../libraries/Merkle.sol";
import {Part} from "./Openings.sol";
import {Site, Sites} from "../libraries/Sites.sol";
import {Slices} from "../libraries/Slices.sol";
import {StepCall} from "../libraries/StepCall.sol";
import {Trace} from "../libraries/Trace.sol";
import {Reader, Wire} from "../libraries/Wire.sol";

/// Executed by TENSOR_STEP.
abstract contract KeyLeaves is GroupLeaves {
    using Sites for Site;
    using Wire for Reader;

    uint8 private constant KEY_UNIT = 0x20;
    uint8 private constant KEY_SCORE = 0x21;
    uint8 private constant KEY_SHARE = 0x22;

    /// An element of an attention, what is published of its head, and an opened key of it.
    struct Head {
        uint32 pos;
        uint32 site;
        uint32 element;
        Site s;
        /// Content of the `Keys` answer.
        bytes keys;
        uint32 key;
        /// The key's record.
        bytes record;
        /// The query head's scale and integers.
        bytes query;
    }

    /// Reads element and opened key; `side` is 2 where no unit is meant.
    function _head(Dispute memory d, uint32 pos, bool sided, Reader memory r)
        private
        view
        returns (Head memory h, uint256 side)
    {
        (h.pos, h.site, h.element) = (pos, r.u32(), r.u32());
        h.s = _site(d, h.site);
        require(h.s.op() == Sites.ATTENTION, WrongOp(h.site, h.s.op()));
        side = sided ? (r.flag() ? 1 : 0) : 2;
        address where = _content(d.id, _words(KEYS, pos, h.site, h.element, 0));
        h.keys = Blob.read(where, 0, Blob.size(where));
        h.key = r.u32();
        (uint256 lo, uint256 n) = _visible(h.s, pos);
        require(h.key >= lo && h.key < n, OutsideRange(h.key, n));
        h.record = _record(d, h, r);
        h.query = _query(d, h, r);
    }

    /// A key's record of the head, all the way from the claimed root.
    function _record(Dispute memory d, Head memory h, Reader memory r) private view returns (bytes memory) {
        bytes32 body = r.hash();
        bool present = r.flag();
        require(present == _samples(d.claim, h.key), OpeningPresence(h.site));
        bytes32 node = Trace.token(h.key, body, present, present ? r.u32() : 0);
        node = Merkle.climb(r, d.claim.positions, h.key, node);
        require(Trace.root(d.claim.header, d.claim.positions, node) == d.claim.traceRoot, WrongKey(h.key));
        uint256 layer = h.s.layer();
        bytes32 kv = r.hash();
        present = r.flag();
        require(present == ((layer + 1) % d.model.stride == 0), OpeningPresence(h.site));
        node = Trace.leaf(h.key, layer, kv, present, present ? r.hash() : bytes32(0));
        require(Merkle.climb(r, d.model.layers, layer, node) == body, WrongKey(h.key));
        uint256 start = _recordStart(d, h);
        return Slices.range(r, kv, Trace.kvLength(d.model), start, start + 2 * (uint256(d.model.headDim) + 4));
    }

    /// Where the record of the element's KV head starts in a row.
    function _recordStart(Dispute memory d, Head memory h) private pure returns (uint256) {
        uint256 head = uint256(h.element) / d.model.headDim / (h.s.param(0) / d.model.kvHeads);
        uint256 record = 2 * (uint256(d.model.headDim) + 4);
        if (record > Slices.CHUNK) return head * record;
        uint256 perChunk = Slices.CHUNK / record;
        return head / perChunk * Slices.CHUNK + head % perChunk * record;
    }

    /// The query head: its scale, then its integers.
    function _query(Dispute memory d, Head memory h, Reader memory r) private view returns (bytes memory) {
        Part memory p;
        p.site = h.s.input(0);
        Site memory s = _site(d, p.site);
        Commitment memory c = _opened(d, h.pos, p.site, s, r);
        uint256 head = uint256(h.element) / d.model.headDim;
        (p.start, p.end) = (head * d.model.headDim, (head + 1) * d.model.headDim);
        bytes memory q = _row(d, s, c, p, r);
        (p.side, p.start, p.end) = (1, head, head + 1);
        return bytes.concat(_row(d, s, c, p, r), q);
    }

    /// The unit of K (0) or V (1) as it is published: flag and exponent, and its key.
    function _unit(bytes memory keys, uint256 side) private pure returns (bytes3 unit, uint256 key) {
        uint256 from = side == 0 || keys[0] == 0 ? side : 7;
        if (keys[from] == 0) return (0, 0);
        assembly ("memory-safe") {
            unit := mload(add(add(keys, 32), from))
        }
        key = Bytes.unsigned(keys, from + 3, 4);
    }

    /// Where the largest score is in a `Keys` answer: its value, its key, then the parts.
    function _maxPlace(bytes memory keys) private pure returns (uint256) {
        uint256 v = keys[0] == 0 ? 1 : 7;
        return v + (keys[v] == 0 ? 1 : 7);
    }

    /// The score of the opened key, by the published unit.
    function _score(Dispute memory d, Head memory h) private view returns (int256) {
        (bytes3 unit,) = _unit(h.keys, 0);
        bytes memory input = abi.encodePacked(
            KEY_SCORE,
            Bytes.le16(d.model.headDim),
            Bytes.le16(h.s.param(3)),
            Bytes.le16(h.s.param(4)),
            unit,
            h.query,
            h.record
        );
        return Bytes.signed(StepCall.run(input, 4), 0, 4);
    }

    /// One key's published share, weight and value (kind 2).
    function _key(Dispute memory d, bytes32 to, uint32 pos, Reader memory r) internal view returns (bool) {
        (Head memory h,) = _head(d, pos, false, r);
        (uint256 lo, uint256 n) = _visible(h.s, pos);
        uint256 len = _partLength(n - lo);
        bytes20 words = _words(KEY_PART, pos, h.site, h.element, (h.key - lo) / len);
        _restsOn(d, to, words);
        bytes memory right = StepCall.run(_shareInput(d, h), 9);
        return Bytes.same(right, Blob.read(_content(d.id, words), (h.key - lo) % len * 9, 9));
    }

    function _shareInput(Dispute memory d, Head memory h) private pure returns (bytes memory) {
        (bytes3 k,) = _unit(h.keys, 0);
        (bytes3 v,) = _unit(h.keys, 1);
        bytes4 most = Bytes.four(h.keys, _maxPlace(h.keys));
        bytes memory head = abi.encodePacked(
            KEY_SHARE,
            Bytes.le16(d.model.headDim),
            Bytes.le16(h.element % d.model.headDim),
            // 15 or 23.
            // forge-lint: disable-next-line(unsafe-typecast)
            uint8(h.s.param(5)),
            Bytes.le16(h.s.param(3)),
            Bytes.le16(h.s.param(4))
        );
        return abi.encodePacked(head, k, v, most, Bytes.le32(h.key), h.query, h.record);
    }

    /// The largest score is not that of its key (kind 3), or exceeded by another (kind 4).
    function _maxScore(Dispute memory d, bytes32 to, uint32 pos, bool attained, Reader memory r)
        internal
        view
        returns (bool)
    {
        (Head memory h,) = _head(d, pos, false, r);
        _restsOn(d, to, _words(KEYS, pos, h.site, h.element, 0));
        uint256 place = _maxPlace(h.keys);
        int256 most = Bytes.signed(h.keys, place, 4);
        int256 got = _score(d, h);
        if (!attained) return got <= most;
        _sameKey(h.key, Bytes.unsigned(h.keys, place + 4, 4));
        return got == most;
    }

    /// A unit is not the exponent of its key's scale (kind 5), or exceeded by another key's (kind 6).
    function _keyUnit(Dispute memory d, bytes32 to, uint32 pos, bool attained, Reader memory r)
        internal
        view
        returns (bool)
    {
        (Head memory h, uint256 side) = _head(d, pos, true, r);
        _restsOn(d, to, _words(KEYS, pos, h.site, h.element, 0));
        (bytes3 unit, uint256 key) = _unit(h.keys, side);
        uint256 half = uint256(d.model.headDim) + 4;
        bytes4 scale = Bytes.four(h.record, side * half + d.model.headDim);
        bytes memory got = StepCall.run(abi.encodePacked(KEY_UNIT, scale), 3);
        if (attained) {
            require(unit != 0, NoUnit(side));
            _sameKey(h.key, key);
            return Bytes.same(got, abi.encodePacked(unit));
        }
        if (got[0] == 0) return true;
        return unit != 0 && Bytes.signed(got, 1, 2) <= Bytes.signed(abi.encodePacked(unit), 1, 2);
    }

    function _sameKey(uint256 got, uint256 expected) private pure {
        require(got == expected, OtherKey(got, expected));
    }
}
