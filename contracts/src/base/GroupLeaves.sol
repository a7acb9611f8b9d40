// The leaves of a dynamic quantisation: the two maxima of a group, its scale, one element. Rules Q1 to Q6, W1 to W3.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Blob} from "../libraries/Blob.sol";
import {Bytes} from "../libraries/Bytes.sol";
import {Dispute} from "./Published.sol";
import {Openings, Part} from "./Openings.sol";
import {Site, Sites} from "../libraries/Sites.sol";
import {StepCall} from "../libraries/StepCall.sol";
import {Reader, Wire} from "../libraries/Wire.sol";

/// Executed by TENSOR_STEP.
abstract contract GroupLeaves is Openings {
    using Sites for Site;
    using Wire for Reader;

    uint8 private constant MAGNITUDE = 0x30;
    uint8 private constant QUANT_SCALE = 0x31;
    uint8 private constant QUANT_ELEMENT = 0x32;

    /// A quantisation at one element, with what its group's answer says: magnitudes and their indices, four bytes each.
    struct Quant {
        uint32 pos;
        uint32 site;
        uint32 element;
        Site s;
        bytes group;
    }

    /// Reads an element of a quantisation and what is published of its group.
    function _quant(Dispute memory d, bytes32 to, uint32 pos, Reader memory r)
        private
        view
        returns (Quant memory q)
    {
        (q.pos, q.site, q.element) = (pos, r.u32(), r.u32());
        q.s = _site(d, q.site);
        require(q.s.op() == Sites.QUANT, WrongOp(q.site, q.s.op()));
        require(q.element < q.s.cols, OutsideRange(q.element, q.s.cols));
        bytes20 words = _words(GROUP, pos, q.site, q.element / q.s.group, 0);
        _restsOn(d, to, words);
        q.group = Blob.read(_content(d.id, words), 0, 16);
    }

    /// Word `i` of the group's answer.
    function _of(Quant memory q, uint256 i) private pure returns (uint256) {
        return Bytes.unsigned(q.group, 4 * i, 4);
    }

    /// The block of the transform that holds element `e`, opened, and the place of `e` in it.
    function _block(Dispute memory d, Quant memory q, uint256 e, Reader memory r)
        private
        view
        returns (bytes memory values, uint256 index)
    {
        uint256 len = q.s.param(1) == 0 ? 1 : q.s.param(1);
        uint256 start = e / len * len;
        return (_input(d, q.pos, Part(q.s.input(0), 0, start, start + len), r), e - start);
    }

    /// A maximum is not attained at its index (kind 7), or exceeded by the element (kind 8).
    function _absMax(Dispute memory d, bytes32 to, uint32 pos, bool attained, Reader memory r)
        internal
        view
        returns (bool)
    {
        Quant memory q = _quant(d, to, pos, r);
        bool raw = r.flag();
        uint256 most = _of(q, raw ? 0 : 2);
        uint256 e = attained ? _of(q, raw ? 1 : 3) : q.element;
        (bytes memory values, uint256 index) = _block(d, q, e, r);
        uint256 got = _magnitude(q, raw ? 0 : q.s.param(1), values, index);
        return attained ? got == most : got <= most;
    }

    /// The magnitude of what is quantised, or with block 0 of the input itself.
    function _magnitude(Quant memory q, uint32 wht, bytes memory values, uint256 index)
        private
        view
        returns (uint256)
    {
        if (wht == 0) {
            bytes memory one = new bytes(4);
            for (uint256 i = 0; i < 4; ++i) {
                one[i] = values[index * 4 + i];
            }
            (values, index) = (one, 0);
        }
        bytes memory head =
            abi.encodePacked(MAGNITUDE, Bytes.le16(wht), Bytes.le16(index), Bytes.four(q.group, 0));
        return Bytes.unsigned(StepCall.run(bytes.concat(head, values), 4), 0, 4);
    }

    /// A group's scale does not follow from its maxima (kind 9).
    function _groupScale(Dispute memory d, bytes32 to, uint32 pos, Reader memory r)
        internal
        view
        returns (bool)
    {
        Quant memory q = _quant(d, to, pos, r);
        bytes memory scale = StepCall.run(
            abi.encodePacked(
                QUANT_SCALE,
                // Planes and fraction bits are bytes; the last is whether there is a transform.
                uint8(q.s.planes),
                uint8(q.s.param(3)),
                uint8(q.s.param(1) == 0 ? 0 : 1),
                Bytes.four(q.group, 0),
                Bytes.four(q.group, 8)
            ),
            4
        );
        bytes memory claimed = _element(d, pos, q.site, q.s, 1, q.element / q.s.group);
        return Bytes.same(scale, claimed);
    }

    /// A quantised element does not follow from its input and the group's maxima (kind 10).
    function _quantElement(Dispute memory d, bytes32 to, uint32 pos, Reader memory r)
        internal
        view
        returns (bool)
    {
        Quant memory q = _quant(d, to, pos, r);
        (bytes memory values, uint256 index) = _block(d, q, q.element, r);
        bytes memory head = abi.encodePacked(
            QUANT_ELEMENT,
            uint8(q.s.planes),
            Bytes.le16(q.s.param(1)),
            Bytes.le16(index),
            Bytes.four(q.group, 0),
            Bytes.four(q.group, 8)
        );
        bytes memory right = StepCall.run(bytes.concat(head, values), q.s.planes);
        return Bytes.same(right, _element(d, pos, q.site, q.s, 0, q.element));
    }
}
