// The leaves of a norm: sums of parts of a group, its largest magnitude, one element. Rules R1 to R9.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Blob} from "../libraries/Blob.sol";
import {Bytes} from "../libraries/Bytes.sol";
import {Dispute} from "./Published.sol";
import {Openings, Part, Want} from "./Openings.sol";
import {Site, Sites} from "../libraries/Sites.sol";
import {StepCall} from "../libraries/StepCall.sol";
import {Reader, Wire} from "../libraries/Wire.sol";

/// Executed by TENSOR_STEP.
abstract contract NormLeaves is Openings {
    using Sites for Site;
    using Wire for Reader;

    uint8 private constant MAGNITUDE_STEP = 0x30;
    uint8 private constant SQUARES_STEP = 0x60;
    uint8 private constant RMS_ELEMENT_STEP = 0x61;
    uint8 private constant SUM_STEP = 0x62;
    uint8 private constant CENTRED_STEP = 0x63;
    uint8 private constant CENTRED_SQUARES_STEP = 0x64;
    uint8 private constant LAYER_ELEMENT_STEP = 0x65;

    /// A norm at one element, with what is published of its group.
    struct Norm {
        uint32 pos;
        uint32 site;
        uint32 element;
        Site s;
        /// Whether it is a layer norm.
        bool layer;
        /// Content of the `Norm` answer.
        bytes answer;
        /// Where the largest magnitude is in it: 8 bytes, the index, then the sums of squares.
        uint256 most;
    }

    /// Reads an element of a norm and what is published of its group.
    function _norm(Dispute memory d, bytes32 to, uint32 pos, Reader memory r)
        private
        view
        returns (Norm memory n)
    {
        (n.pos, n.site, n.element) = (pos, r.u32(), r.u32());
        n.s = _site(d, n.site);
        require(_isNorm(n.s), WrongOp(n.site, n.s.op()));
        require(n.element < n.s.cols, OutsideRange(n.element, n.s.cols));
        n.layer = n.s.op() == Sites.LAYER_NORM;
        bytes20 words = _words(NORM, pos, n.site, n.element / n.s.param(3), 0);
        _restsOn(d, to, words);
        address where = _content(d.id, words);
        n.answer = Blob.read(where, 0, Blob.size(where));
        n.most = 2 + (n.layer ? 8 * _normParts(n.s) : 0);
    }

    /// Eight published bytes.
    function _eight(Norm memory n, uint256 spot) private pure returns (bytes8 out) {
        bytes memory answer = n.answer;
        assembly ("memory-safe") {
            out := mload(add(add(answer, 32), spot))
        }
    }

    /// The sum of a layer norm's group by its published parts: exact, then clamped to 64 bits.
    function _sum(Norm memory n) private pure returns (bytes8) {
        int256 sum;
        for (uint256 spot = 2; spot < n.most; spot += 8) {
            sum += Bytes.signed(n.answer, spot, 8);
        }
        if (sum > type(int64).max) sum = type(int64).max;
        if (sum < type(int64).min) sum = type(int64).min;
        // The low 64 bits of a number that has no more.
        // forge-lint: disable-next-line(unsafe-typecast)
        return Bytes.le64(uint256(sum));
    }

    /// A part of the element's group: its number, and its elements opened.
    function _normPart(Dispute memory d, Norm memory n, Reader memory r)
        private
        view
        returns (uint256 part, bytes memory x)
    {
        part = r.u32();
        require(part < _normParts(n.s), OutsideRange(part, _normParts(n.s)));
        uint256 group = n.s.param(3);
        uint256 first = n.element / group * group;
        uint256 start = first + part * NORM_PART;
        uint256 end = start + NORM_PART;
        if (end > first + group) end = first + group;
        x = _input(d, n.pos, Part(n.s.input(0), 0, start, end), r);
    }

    /// The plain sum of a part of a layer norm's group is wrong (kind 18).
    function _normSum(Dispute memory d, bytes32 to, uint32 pos, Reader memory r)
        internal
        view
        returns (bool)
    {
        Norm memory n = _norm(d, to, pos, r);
        require(n.layer, WrongOp(n.site, n.s.op()));
        (uint256 part, bytes memory x) = _normPart(d, n, r);
        bytes memory right = StepCall.run(abi.encodePacked(SUM_STEP, Bytes.le16(x.length / 4), x), 8);
        // Eight bytes stay eight bytes.
        // forge-lint: disable-next-line(unsafe-typecast)
        return bytes8(right) == _eight(n, 2 + 8 * part);
    }

    /// The largest magnitude of a group is exceeded by the element, or not attained at its index (kind 19).
    function _normMax(Dispute memory d, bytes32 to, uint32 pos, Reader memory r)
        internal
        view
        returns (bool)
    {
        Norm memory n = _norm(d, to, pos, r);
        bool exceeded = r.flag();
        uint256 e = exceeded ? n.element : Bytes.unsigned(n.answer, n.most + 8, 4);
        bytes memory h = _input(d, pos, Part(n.s.input(0), 0, e, e + 1), r);
        uint256 got = _magnitude(n, h);
        uint256 most = Bytes.unsigned(n.answer, n.most, 8);
        return exceeded ? got <= most : got == most;
    }

    /// Magnitude of an element, of a layer norm when the group's sum is gone.
    function _magnitude(Norm memory n, bytes memory h) private view returns (uint256) {
        if (n.layer) {
            bytes memory input = abi.encodePacked(CENTRED_STEP, Bytes.le32(n.s.param(3)), _sum(n), h);
            return Bytes.unsigned(StepCall.run(input, 8), 0, 8);
        }
        // No block, so neither an index nor a maximum before it.
        return Bytes.unsigned(StepCall.run(abi.encodePacked(MAGNITUDE_STEP, bytes8(0), h), 4), 0, 4);
    }

    /// The sum of squares of a part of a group is wrong (kind 20).
    function _normSquares(Dispute memory d, bytes32 to, uint32 pos, Reader memory r)
        internal
        view
        returns (bool)
    {
        Norm memory n = _norm(d, to, pos, r);
        (uint256 part, bytes memory x) = _normPart(d, n, r);
        bytes memory head = n.layer
            ? abi.encodePacked(CENTRED_SQUARES_STEP, Bytes.le32(n.s.param(3)), _sum(n), _eight(n, n.most))
            : abi.encodePacked(SQUARES_STEP, Bytes.four(n.answer, n.most));
        bytes memory right = StepCall.run(bytes.concat(head, Bytes.le16(x.length / 4), x), 8);
        // Eight bytes stay eight bytes.
        // forge-lint: disable-next-line(unsafe-typecast)
        return bytes8(right) == _eight(n, n.most + 12 + 8 * part);
    }

    /// An element does not follow from its input and its group's numbers (kind 21).
    function _normElement(Dispute memory d, bytes32 to, uint32 pos, Reader memory r)
        internal
        view
        returns (bool)
    {
        Norm memory n = _norm(d, to, pos, r);
        bytes memory right = StepCall.run(bytes.concat(_group(n), _openElement(d, n, r), _squares(n)), 4);
        return Bytes.same(right, _element(d, pos, n.site, n.s, 0, n.element));
    }

    /// Number, parameters, and what is published of the group but its squares.
    function _group(Norm memory n) private pure returns (bytes memory) {
        bytes memory head = abi.encodePacked(
            n.layer ? LAYER_ELEMENT_STEP : RMS_ELEMENT_STEP,
            Bytes.le32(n.s.param(3)),
            // Epsilon in two words; fraction bits are bytes.
            Bytes.le32(n.s.param(1)),
            Bytes.le32(n.s.param(2)),
            // forge-lint: disable-next-line(unsafe-typecast)
            uint8(n.s.param(0) & 0xff),
            // forge-lint: disable-next-line(unsafe-typecast)
            uint8(n.s.param(5))
        );
        bytes memory numbers = n.layer
            ? abi.encodePacked(_sum(n), _eight(n, n.most))
            : abi.encodePacked(Bytes.four(n.answer, n.most));
        return bytes.concat(head, numbers, Bytes.le16(_normParts(n.s)));
    }

    /// The element, its gain and of a layer norm its bias.
    function _openElement(Dispute memory d, Norm memory n, Reader memory r)
        private
        view
        returns (bytes memory)
    {
        uint256 e = n.element;
        bytes memory h = _input(d, n.pos, Part(n.s.input(0), 0, e, e + 1), r);
        uint256 group = n.s.param(3);
        Want memory want = Want(n.s.tensor(0), I32, 1, group, e % group, e % group + 1);
        bytes memory gain = _tensor(d, want, r);
        require(r.flag() == n.layer, OpeningPresence(n.site));
        if (!n.layer) return bytes.concat(h, gain);
        want.id = n.s.tensor(3);
        return bytes.concat(h, gain, _tensor(d, want, r));
    }

    /// The published sums of squares.
    function _squares(Norm memory n) private pure returns (bytes memory out) {
        uint256 from = n.most + 12;
        out = new bytes(n.answer.length - from);
        bytes memory answer = n.answer;
        assembly ("memory-safe") {
            mcopy(add(out, 32), add(add(answer, 32), from), mload(out))
        }
    }
}
