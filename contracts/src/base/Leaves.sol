// Accusations: the contract opens the inputs of one step and executes it. A right step ends the accuser's game.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Commitment, Dispute} from "./Published.sol";
import {DrawLeaves} from "./DrawLeaves.sol";
import {KeyLeaves} from "./KeyLeaves.sol";
import {ModelLeaves} from "./ModelLeaves.sol";
import {Part, Want, WeightPart} from "./Openings.sol";
import {RowLeaves} from "./RowLeaves.sol";
import {Blob} from "../libraries/Blob.sol";
import {Bytes} from "../libraries/Bytes.sol";
import {Levels} from "../libraries/Levels.sol";
import {Site, Sites} from "../libraries/Sites.sol";
import {Slices} from "../libraries/Slices.sol";
import {StepCall} from "../libraries/StepCall.sol";
import {Reader, Wire} from "../libraries/Wire.sol";

/// The steps.
abstract contract Leaves is KeyLeaves, DrawLeaves, RowLeaves, ModelLeaves {
    using Sites for Site;
    using Wire for Reader;

    uint256 private constant LINEAR_PART = 0;
    uint256 private constant LINEAR_FINISH = 1;
    uint256 private constant KEY = 2;
    uint256 private constant MAX_NOT_ATTAINED = 3;
    uint256 private constant MAX_EXCEEDED = 4;
    uint256 private constant UNIT_NOT_ATTAINED = 5;
    uint256 private constant UNIT_EXCEEDED = 6;
    uint256 private constant ABS_MAX_NOT_ATTAINED = 7;
    uint256 private constant ABS_MAX_EXCEEDED = 8;
    uint256 private constant GROUP_SCALE = 9;
    uint256 private constant QUANT_ELEMENT = 10;
    uint256 private constant GREEDY_EXCEEDED = 11;
    uint256 private constant DRAW_HEAD_FAULT = 12;
    uint256 private constant DRAW_IDS_FAULT = 13;
    uint256 private constant EMBED = 14;
    uint256 private constant OUT = 15;
    uint256 private constant TENSOR_FAULT = 16;
    uint256 private constant ROW_FAULT = 17;
    uint256 private constant NORM_SUM = 18;
    uint256 private constant NORM_MAX = 19;
    uint256 private constant NORM_SQUARES = 20;
    uint256 private constant NORM_ELEMENT = 21;
    uint256 private constant ELEMENTWISE = 22;
    uint256 private constant ROTATED = 23;
    uint256 private constant RECORD = 24;

    uint8 private constant LINEAR_PART_STEP = 0x10;
    uint8 private constant LINEAR_FINISH_STEP = 0x11;
    uint8 private constant GREEDY_STEP = 0x44;
    uint8 private constant EMBED_STEP = 0x50;

    /// Executes an accusation that rests on the answer with id `to`; tells its kind and whether the published number is
    /// right.
    function _execute(Dispute memory d, bytes32 to, Reader memory r)
        internal
        view
        returns (uint8 kind, bool right)
    {
        // One byte.
        // forge-lint: disable-next-line(unsafe-typecast)
        kind = uint8(r.u8());
        if (kind == TENSOR_FAULT || kind == ROW_FAULT) {
            right = kind == TENSOR_FAULT ? _tensorIs(d, to, r) : _rowIs(d, to, r);
            r.done();
            return (kind, right);
        }
        uint32 pos = r.u32();
        require(pos < d.claim.positions, OutsideRange(pos, d.claim.positions));
        if (kind == LINEAR_PART) right = _linearPart(d, to, pos, r);
        else if (kind == LINEAR_FINISH) right = _linearFinish(d, to, pos, r);
        else if (kind == KEY) right = _key(d, to, pos, r);
        else if (kind == MAX_NOT_ATTAINED) right = _maxScore(d, to, pos, true, r);
        else if (kind == MAX_EXCEEDED) right = _maxScore(d, to, pos, false, r);
        else if (kind == UNIT_NOT_ATTAINED) right = _keyUnit(d, to, pos, true, r);
        else if (kind == UNIT_EXCEEDED) right = _keyUnit(d, to, pos, false, r);
        else if (kind == ABS_MAX_NOT_ATTAINED) right = _absMax(d, to, pos, true, r);
        else if (kind == ABS_MAX_EXCEEDED) right = _absMax(d, to, pos, false, r);
        else if (kind == GROUP_SCALE) right = _groupScale(d, to, pos, r);
        else if (kind == QUANT_ELEMENT) right = _quantElement(d, to, pos, r);
        else if (kind == GREEDY_EXCEEDED) right = _greedy(d, to, pos, r);
        else if (kind == DRAW_HEAD_FAULT) right = _drawHead(d, to, pos, r);
        else if (kind == DRAW_IDS_FAULT) right = _drawIds(d, to, pos, r);
        else if (kind == EMBED) right = _embed(d, to, pos, r);
        else if (kind == OUT) right = _out(d, to, pos, r);
        else if (kind == NORM_SUM) right = _normSum(d, to, pos, r);
        else if (kind == NORM_MAX) right = _normMax(d, to, pos, r);
        else if (kind == NORM_SQUARES) right = _normSquares(d, to, pos, r);
        else if (kind == NORM_ELEMENT) right = _normElement(d, to, pos, r);
        else if (kind == ELEMENTWISE) right = _elementwise(d, to, pos, r);
        else if (kind == ROTATED) right = _rope(d, to, pos, r);
        else if (kind == RECORD) right = _cached(d, to, pos, r);
        else revert NoSuchStep(kind);
        r.done();
    }

    /// A linear's site and element.
    function _linear(Dispute memory d, bytes32 to, uint32 pos, Reader memory r)
        private
        view
        returns (uint32 site, Site memory s, uint32 element)
    {
        site = r.u32();
        element = r.u32();
        s = _site(d, site);
        require(s.op() == Sites.LINEAR, WrongOp(site, s.op()));
        _restsOn(d, to, _words(SUM, pos, site, element, 0));
    }

    /// L1: a part of a linear's sum.
    function _linearPart(Dispute memory d, bytes32 to, uint32 pos, Reader memory r)
        private
        view
        returns (bool)
    {
        (uint32 site, Site memory s, uint32 element) = _linear(d, to, pos, r);
        uint32 part = r.u32();
        bytes memory claimed = _part(d, _words(SUM, pos, site, element, 0), part, s);
        WeightPart memory w;
        (w.n, w.k, w.row) = (s.param(0), s.param(1), element);
        (w.start, w.end) = Levels.linearPart(w.k, s.param(2), part);
        bytes memory xs = _input(d, pos, Part(s.input(0), 0, w.start, w.end), r);
        return Bytes.same(_dot(d, site, s, xs, w, r), claimed);
    }

    function _dot(
        Dispute memory d,
        uint32 site,
        Site memory s,
        bytes memory xs,
        WeightPart memory w,
        Reader memory r
    ) private view returns (bytes memory) {
        (bytes memory ws, bytes memory mults) = _weights(d, site, s, w, r);
        bytes memory head = abi.encodePacked(
            LINEAR_PART_STEP,
            _planes(d, s),
            mults.length == 0 ? bytes1(0) : bytes1(0x01),
            Bytes.le16(ws.length)
        );
        return StepCall.run(bytes.concat(head, xs, ws, mults), 8);
    }

    /// Bytes an element of a linear's input.
    function _planes(Dispute memory d, Site memory s) private view returns (uint8) {
        // 1 or 2.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint8(_site(d, s.input(0)).planes);
    }

    /// A published partial sum.
    function _part(Dispute memory d, bytes20 words, uint256 part, Site memory s)
        private
        view
        returns (bytes memory)
    {
        uint256 parts = Levels.linearParts(s.param(1), s.param(2));
        require(part < parts, OutsideRange(part, parts));
        return Blob.read(_content(d.id, words), part * 8, 8);
    }

    /// L2 to L5: a linear's requantisation of its published parts.
    function _linearFinish(Dispute memory d, bytes32 to, uint32 pos, Reader memory r)
        private
        view
        returns (bool)
    {
        (uint32 site, Site memory s, uint32 element) = _linear(d, to, pos, r);
        bytes memory scales = _input(d, pos, Part(s.input(0), 1, 0, s.param(2)), r);
        bytes memory head = bytes.concat(_finishHead(d, s), _scaleAndBias(d, site, s, element, r), scales);
        bytes20 words = _words(SUM, pos, site, element, 0);
        bytes memory sums =
            Blob.read(_content(d.id, words), 0, 8 * Levels.linearParts(s.param(1), s.param(2)));
        bytes memory right = StepCall.run(bytes.concat(head, sums), 4);
        return Bytes.same(right, _element(d, pos, site, s, 0, element));
    }

    /// Number, planes, format, segments and parts a segment.
    function _finishHead(Dispute memory d, Site memory s) private view returns (bytes memory) {
        uint256 segments = s.param(2);
        uint256 parts = Levels.linearParts(s.param(1), segments) / segments;
        // Format bits and segments are bytes.
        // forge-lint: disable-next-item(unsafe-typecast)
        return abi.encodePacked(
            LINEAR_FINISH_STEP, _planes(d, s), uint8(s.param(3)), uint8(segments), Bytes.le16(parts)
        );
    }

    /// The weight row's scale, and its bias or 0.
    function _scaleAndBias(Dispute memory d, uint32 site, Site memory s, uint256 element, Reader memory r)
        private
        view
        returns (bytes memory)
    {
        Want memory want = Want(s.tensor(1), SCALE, 1, s.param(0), element, element + 1);
        bytes memory scale = _tensor(d, want, r);
        (want.id, want.dtype) = (s.tensor(3), I32);
        require(r.flag() == (want.id != Sites.NONE), OpeningPresence(site));
        return bytes.concat(scale, want.id == Sites.NONE ? new bytes(4) : _tensor(d, want, r));
    }

    /// S1: another id has a larger logit, or an equal one and a lower id.
    function _greedy(Dispute memory d, bytes32 to, uint32 pos, Reader memory r) private view returns (bool) {
        require(d.claim.temperatureQ16 == 0, OtherSampler(d.claim.temperatureQ16));
        uint32 id = r.u32();
        Site memory s = _sampleSite(d);
        _restsOn(d, to, _words(UNIT, pos, s.unit, 0, 0));
        Part memory p;
        p.site = s.input(0);
        s = _site(d, p.site);
        Commitment memory c = _opened(d, pos, p.site, s, r);
        uint256 token = _sampled(d, pos);
        (p.start, p.end) = (token, token + 1);
        bytes memory mine = _row(d, s, c, p, r);
        (p.start, p.end) = (id, uint256(id) + 1);
        bytes memory other = _row(d, s, c, p, r);
        bytes memory input = abi.encodePacked(GREEDY_STEP, mine, Bytes.le32(token), other, Bytes.le32(id));
        return StepCall.run(input, 1)[0] == 0;
    }

    /// E1, E2: an embedding's element, of the id that the job or the output has at this position, or of the position.
    function _embed(Dispute memory d, bytes32 to, uint32 pos, Reader memory r) private view returns (bool) {
        uint32 site = r.u32();
        uint32 element = r.u32();
        Site memory s = _site(d, site);
        bool places = s.op() == Sites.POS_EMBED;
        require(places || s.op() == Sites.EMBED, WrongOp(site, s.op()));
        {
            (bytes20 words,,) = _pieceAsk(d, pos, site, s, 0, element);
            _restsOn(d, to, words);
        }
        WeightPart memory w;
        (w.n, w.k) = (places ? d.model.context : d.model.vocab, d.model.dModel);
        bool prompt = !places && pos < d.claim.prompt;
        require(r.flag() == prompt, OpeningPresence(site));
        w.row = places ? pos : prompt ? _promptId(d, pos, r) : _output(d, pos - 1);
        (w.start, w.end) = (element, uint256(element) + 1);
        return Bytes.same(_embedded(d, site, s, w, r), _element(d, pos, site, s, 0, element));
    }

    function _embedded(Dispute memory d, uint32 site, Site memory s, WeightPart memory w, Reader memory r)
        private
        view
        returns (bytes memory)
    {
        (bytes memory q, bytes memory mult) = _weights(d, site, s, w, r);
        bytes memory scale = _tensor(d, Want(s.tensor(1), SCALE, 1, w.n, w.row, w.row + 1), r);
        if (mult.length == 0) mult = hex"01";
        // Format bits are a byte.
        // forge-lint: disable-next-line(unsafe-typecast)
        return StepCall.run(abi.encodePacked(EMBED_STEP, uint8(s.param(0)), q, mult, scale), 4);
    }

    /// The prompt's id at `pos`, opened under its hash.
    function _promptId(Dispute memory d, uint256 pos, Reader memory r) private view returns (uint256) {
        bytes memory id =
            Slices.range(r, d.claim.inputHash, uint256(d.claim.prompt) * 4, pos * 4, pos * 4 + 4);
        return Bytes.unsigned(id, 0, 4);
    }
}
