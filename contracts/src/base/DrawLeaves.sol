// The leaves of a random draw: the numbers of its head, each by one logit, and the sums over a few ids. Rules S1 to S5.
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
abstract contract DrawLeaves is Openings {
    using Sites for Site;
    using Wire for Reader;

    uint8 private constant PROBABILITY = 0x40;
    uint8 private constant ID_SUMS_STEP = 0x41;

    /// What of a head is accused, in the order of `DrawFault`.
    uint256 private constant MAX_ATTAINED = 0;
    uint256 private constant MAX_BOUNDS = 1;
    uint256 private constant THRESHOLD = 2;
    uint256 private constant SAMPLED = 3;

    /// A number of a draw's head is wrong (kind 12): executed on one logit.
    function _drawHead(Dispute memory d, bytes32 to, uint32 pos, Reader memory r)
        internal
        view
        returns (bool)
    {
        Site memory s = _sampleSite(d);
        bytes20 words = _words(DRAW, pos, 0, 0, 0);
        _restsOn(d, to, words);
        uint256 what = r.u8();
        require(what <= SAMPLED, OutsideRange(what, SAMPLED + 1));
        uint32 id = r.u32();
        bytes memory logit = _input(d, pos, Part(s.input(0), 0, id, uint256(id) + 1), r);
        bytes memory head = Blob.read(_content(d.id, words), 0, DRAW_HEAD);
        if (what == SAMPLED) _sameId(id, _sampled(d, pos));
        else if (what != MAX_BOUNDS) _sameId(id, Bytes.unsigned(head, what == MAX_ATTAINED ? 4 : 20, 4));

        if (what == MAX_ATTAINED) return Bytes.four(head, 0) == Bytes.four(logit, 0);
        if (what == MAX_BOUNDS) return Bytes.signed(logit, 0, 4) <= Bytes.signed(head, 0, 4);
        bytes memory input = bytes.concat(_probabilityHead(d, s, PROBABILITY), Bytes.four(head, 0), logit);
        return Bytes.four(StepCall.run(input, 4), 0) == Bytes.four(head, what == THRESHOLD ? 16 : 24);
    }

    /// The sums of one published smallest part are wrong (kind 13).
    function _drawIds(Dispute memory d, bytes32 to, uint32 pos, Reader memory r)
        internal
        view
        returns (bool)
    {
        Part memory p;
        bytes memory claimed;
        {
            (uint32 part, uint32 sub) = (r.u32(), r.u32());
            bytes20 words = _words(DRAW_PART, pos, part, 0, 0);
            _restsOn(d, to, words);
            (p.start, p.end) = _idsOf(d, part, sub);
            claimed = Blob.read(_content(d.id, words), sub * ID_SUMS, ID_SUMS);
        }
        Site memory s = _sampleSite(d);
        p.site = s.input(0);
        bytes memory input = _idsInput(d, pos, s, p.start, _input(d, pos, p, r));
        return Bytes.same(StepCall.run(input, ID_SUMS), claimed);
    }

    /// What the step that sums over ids is given.
    function _idsInput(Dispute memory d, uint32 pos, Site memory s, uint256 first, bytes memory logits)
        private
        view
        returns (bytes memory)
    {
        address draw = _content(d.id, _words(DRAW, pos, 0, 0, 0));
        return bytes.concat(
            _probabilityHead(d, s, ID_SUMS_STEP),
            Blob.read(draw, 0, 4),
            // Both thresholds.
            Blob.read(draw, 8, 16),
            Bytes.le32(_sampled(d, pos)),
            Bytes.le32(first),
            Bytes.le16(logits.length / 4),
            logits
        );
    }

    /// Number, format of the logits, temperature.
    function _probabilityHead(Dispute memory d, Site memory s, uint8 step)
        private
        pure
        returns (bytes memory)
    {
        // Format bits are a byte.
        // forge-lint: disable-next-line(unsafe-typecast)
        return abi.encodePacked(step, uint8(s.param(0)), Bytes.le32(d.claim.temperatureQ16));
    }

    /// The ids of part `sub` of part `part`, which is published.
    function _idsOf(Dispute memory d, uint256 part, uint256 sub)
        private
        pure
        returns (uint256 first, uint256 end)
    {
        (, uint256 whole) = _idParts(d);
        (uint256 subs, uint256 len) = _idSubParts(d, part);
        require(sub < subs, OutsideRange(sub, subs));
        first = part * whole + sub * len;
        end = first + len < d.model.vocab ? first + len : d.model.vocab;
    }

    function _sameId(uint256 got, uint256 expected) private pure {
        require(got == expected, OtherId(got, expected));
    }
}
