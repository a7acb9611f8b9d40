// The leaves of ops that go element by element: sums, units, rotated pairs, cached records, out rows.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Bytes} from "../libraries/Bytes.sol";
import {Commitment, Dispute} from "./Published.sol";
import {NormLeaves} from "./NormLeaves.sol";
import {Part, Want} from "./Openings.sol";
import {Site, Sites} from "../libraries/Sites.sol";
import {Slices} from "../libraries/Slices.sol";
import {StepCall} from "../libraries/StepCall.sol";
import {Reader, Wire} from "../libraries/Wire.sol";

/// Executed by TENSOR_STEP.
abstract contract RowLeaves is NormLeaves {
    using Sites for Site;
    using Wire for Reader;

    uint8 private constant ADD_STEP = 0x51;
    uint8 private constant GLU_STEP = 0x52;
    uint8 private constant ACT_STEP = 0x53;
    uint8 private constant ROPE_STEP = 0x54;
    uint8 private constant KV_RECORD_STEP = 0x55;

    /// An element of a row.
    struct Place {
        uint32 pos;
        uint32 site;
        uint32 element;
        Site s;
    }

    /// A rotated pair: its first element of the row, how far the second is, which pair of its head, which of the two.
    struct Pair {
        uint256 first;
        uint256 apart;
        uint256 index;
        bool second;
    }

    /// Reads an element; the accusation rests on its piece.
    function _place(Dispute memory d, bytes32 to, uint32 pos, Reader memory r)
        private
        view
        returns (Place memory p)
    {
        (p.pos, p.site, p.element) = (pos, r.u32(), r.u32());
        p.s = _site(d, p.site);
        (bytes20 words,,) = _pieceAsk(d, pos, p.site, p.s, 0, p.element);
        _restsOn(d, to, words);
    }

    /// Whether an element is this one.
    function _isRight(Dispute memory d, Place memory p, bytes memory right) private view returns (bool) {
        return Bytes.same(right, _element(d, p.pos, p.site, p.s, 0, p.element));
    }

    /// D1, G1 to G5: an element of a sum of rows, of a gated unit, of one without a gate (kind 22).
    function _elementwise(Dispute memory d, bytes32 to, uint32 pos, Reader memory r)
        internal
        view
        returns (bool)
    {
        Place memory p = _place(d, to, pos, r);
        uint32 op = p.s.op();
        require(op == Sites.ADD || op == Sites.GLU || op == Sites.ACT, WrongOp(p.site, op));
        bytes memory input = abi.encodePacked(ADD_STEP);
        if (op != Sites.ADD) {
            // The activation's number, and fraction bits: a byte each.
            // forge-lint: disable-next-item(unsafe-typecast)
            input = abi.encodePacked(
                op == Sites.GLU ? GLU_STEP : ACT_STEP, uint8(p.s.param(0)), uint8(p.s.param(1))
            );
        }
        input = bytes.concat(input, _same(d, p, 0, r));
        require(r.flag() == (op != Sites.ACT), OpeningPresence(p.site));
        if (op != Sites.ACT) input = bytes.concat(input, _same(d, p, 1, r));
        return _isRight(d, p, StepCall.run(input, 4));
    }

    /// The same element of an input.
    function _same(Dispute memory d, Place memory p, uint256 i, Reader memory r)
        private
        view
        returns (bytes memory)
    {
        return _input(d, p.pos, Part(p.s.input(i), 0, p.element, uint256(p.element) + 1), r);
    }

    /// The pair of an element (P1).
    function _pair(Place memory p) private pure returns (Pair memory t) {
        uint256 half = uint256(p.s.param(0)) / 2;
        uint256 i = uint256(p.element) % (2 * half);
        bool halves = p.s.param(1) == 1;
        t.apart = halves ? half : 1;
        t.index = halves ? i % half : i / 2;
        t.second = halves ? i >= half : i % 2 == 1;
        t.first = p.element - (t.second ? t.apart : 0);
    }

    /// P1, P2: an element of a rotated pair (kind 23).
    function _rope(Dispute memory d, bytes32 to, uint32 pos, Reader memory r) internal view returns (bool) {
        Place memory p = _place(d, to, pos, r);
        require(p.s.op() == Sites.ROPE, WrongOp(p.site, p.s.op()));
        Pair memory t = _pair(p);
        bytes memory x = _input(d, pos, Part(p.s.input(0), 0, t.first, t.first + t.apart + 1), r);
        x = abi.encodePacked(ROPE_STEP, Bytes.four(x, 0), Bytes.four(x, 4 * t.apart));
        x = StepCall.run(bytes.concat(x, _angles(d, p, t.index, r)), 8);
        return _isRight(d, p, abi.encodePacked(Bytes.four(x, t.second ? 4 : 0)));
    }

    /// Cosine and sine of pair `i` at the position.
    function _angles(Dispute memory d, Place memory p, uint256 i, Reader memory r)
        private
        view
        returns (bytes memory)
    {
        uint256 dim = p.s.param(0);
        uint256 from = p.pos * dim + i;
        Want memory want = Want(p.s.tensor(0), I16, d.model.context, dim, from, from + dim / 2 + 1);
        bytes memory row = _tensor(d, want, r);
        return bytes.concat(bytes2(Bytes.four(row, 0)), bytes2(Bytes.four(row, dim)));
    }

    /// A byte of a cached row (kind 24): the record of its head, and zeros up to the next one.
    function _cached(Dispute memory d, bytes32 to, uint32 pos, Reader memory r) internal view returns (bool) {
        Place memory p = _place(d, to, pos, r);
        require(p.s.op() == Sites.KV_APPEND, WrongOp(p.site, p.s.op()));
        uint256 head = _headAt(d.model.headDim, p.element);
        (uint256 start, uint256 size) = _span(d, head);
        bytes memory right = StepCall.run(_recordInput(d, p, head, r), 4 + size);
        return right[4 + p.element - start] == _element(d, pos, p.site, p.s, 0, p.element)[0];
    }

    /// What a head decides of a row: from where, and how many bytes, the gap behind its record included.
    function _span(Dispute memory d, uint256 head) private pure returns (uint256 start, uint256 size) {
        uint256 dim = d.model.headDim;
        start = _recordAt(dim, head);
        size = head + 1 < d.model.kvHeads ? _recordAt(dim, head + 1) - start : 2 * (dim + 4);
    }

    /// Number, shape, and the record of a head, opened.
    function _recordInput(Dispute memory d, Place memory p, uint256 head, Reader memory r)
        private
        view
        returns (bytes memory)
    {
        bytes memory shape = abi.encodePacked(
            KV_RECORD_STEP, Bytes.le16(d.model.headDim), Bytes.le16(d.model.kvHeads), Bytes.le16(head)
        );
        bytes memory k = _headOf(d, p, 0, head, r);
        return bytes.concat(shape, k, _headOf(d, p, 1, head, r));
    }

    /// The head whose record, or the gap behind it, holds a byte.
    function _headAt(uint256 dim, uint256 byte_) private pure returns (uint256) {
        uint256 record = 2 * (dim + 4);
        if (record > Slices.CHUNK) return byte_ / record;
        uint256 perChunk = Slices.CHUNK / record;
        uint256 inChunk = byte_ % Slices.CHUNK / record;
        return byte_ / Slices.CHUNK * perChunk + (inChunk < perChunk ? inChunk : perChunk - 1);
    }

    /// Where a head's record starts.
    function _recordAt(uint256 dim, uint256 head) private pure returns (uint256) {
        uint256 record = 2 * (dim + 4);
        if (record > Slices.CHUNK) return head * record;
        uint256 perChunk = Slices.CHUNK / record;
        return head / perChunk * Slices.CHUNK + head % perChunk * record;
    }

    /// A head of an input: its integers, then its scale.
    function _headOf(Dispute memory d, Place memory p, uint256 i, uint256 head, Reader memory r)
        private
        view
        returns (bytes memory)
    {
        Part memory part;
        part.site = p.s.input(i);
        Site memory s = _site(d, part.site);
        Commitment memory c = _opened(d, p.pos, part.site, s, r);
        uint256 dim = d.model.headDim;
        (part.start, part.end) = (head * dim, (head + 1) * dim);
        bytes memory data = _row(d, s, c, part, r);
        (part.side, part.start, part.end) = (1, head, head + 1);
        return bytes.concat(data, _row(d, s, c, part, r));
    }

    /// An out row is not what it passes on (kind 15): two commitments.
    function _out(Dispute memory d, bytes32 to, uint32 pos, Reader memory r) internal view returns (bool) {
        uint32 site = r.u32();
        Site memory s = _site(d, site);
        require(s.op() == Sites.OUT, WrongOp(site, s.op()));
        _restsOn(d, to, _words(UNIT, pos, s.unit, 0, 0));
        bytes32 claimed = _commit(d, pos, site, s).data;
        uint32 input = s.input(0);
        return _opened(d, pos, input, _site(d, input), r).data == claimed;
    }
}
