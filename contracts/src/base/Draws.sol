// Random draws: where their numbers are published, and the answers that publish them. Rules S3 to S7.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Asks} from "./Asks.sol";
import {Dispute} from "./Published.sol";
import {Blob} from "../libraries/Blob.sol";
import {Bytes} from "../libraries/Bytes.sol";
import {StepCall} from "../libraries/StepCall.sol";
import {Reader, Wire} from "../libraries/Wire.sol";

/// Checks of the answers to `Draw` and `DrawPart`. Executed by TENSOR_STEP.
abstract contract Draws is Asks {
    using Wire for Reader;

    uint8 private constant ID_TOTAL = 0x42;
    uint8 private constant DRAW_STEP = 0x43;

    /// Bytes of the sums over some ids.
    uint256 internal constant ID_SUMS = 32;
    /// Bytes of a `Draw` answer before its sums: largest logit and its id, both thresholds, the sampled id's probability.
    uint256 internal constant DRAW_HEAD = 28;

    /// The head of a draw and the sums of all ids: they must cut where the job says and hold the draw.
    function _checkDraw(Dispute memory d, uint32 pos, Reader memory r) internal view {
        r.skip(4);
        _anId(d, r.u32());
        // Top-k's threshold, the last one, the sampled id's probability.
        uint256 spot = r.skip(12);
        _anId(d, r.u32());
        r.skip(4);
        (uint256 parts,) = _idParts(d);
        bytes memory sums = _total(r, parts);
        bytes memory input = Bytes.append(_drawOf(d, pos), spot, 20);
        input = bytes.concat(input, Bytes.le32(_sampled(d, pos)), sums);
        uint8 why = uint8(StepCall.run(input, 1)[0]);
        require(why == 0, OtherDraw(why));
    }

    /// Number, vocabulary, sampler, seed and position.
    function _drawOf(Dispute memory d, uint32 pos) private pure returns (bytes memory) {
        return abi.encodePacked(
            DRAW_STEP,
            Bytes.le32(d.model.vocab),
            Bytes.le32(d.claim.topK),
            Bytes.le32(d.claim.topPQ16),
            Bytes.le64(d.claim.seed),
            Bytes.le32(pos)
        );
    }

    /// The sums of the parts of a part of the ids: they must add up to it.
    function _checkDrawPart(Dispute memory d, uint32 pos, uint32 part, Reader memory r) internal view {
        (uint256 parts,) = _idSubParts(d, part);
        bytes memory sums = _total(r, parts);
        address draw = _content(d.id, _words(DRAW, pos, 0, 0, 0));
        require(Bytes.same(sums, Blob.read(draw, DRAW_HEAD + part * ID_SUMS, ID_SUMS)), OtherSums(part));
    }

    /// The sums that end an answer, added up.
    function _total(Reader memory r, uint256 expected) private view returns (bytes memory) {
        uint256 n = r.rest(ID_SUMS);
        require(n == expected, ItemCount(n, expected));
        bytes memory head = abi.encodePacked(ID_TOTAL, Bytes.le16(n));
        return StepCall.run(Bytes.append(head, r.skip(n * ID_SUMS), n * ID_SUMS), ID_SUMS);
    }

    /// The parts that the parts of the ids are cut into: how many, and ids in each.
    function _idSubParts(Dispute memory d, uint256 part) internal pure returns (uint256 parts, uint256 len) {
        (, uint256 whole) = _idParts(d);
        len = _partLength(whole);
        uint256 left = uint256(d.model.vocab) - part * whole;
        parts = ((left < whole ? left : whole) + len - 1) / len;
    }

    function _anId(Dispute memory d, uint32 id) private pure {
        require(id < d.model.vocab, OutsideRange(id, d.model.vocab));
    }
}
