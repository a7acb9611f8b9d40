// Answers: each must lead to its published parent; some contradict what is public and convict at once.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Dispute} from "./Published.sol";
import {Norms} from "./Norms.sol";
import {Blake3Node} from "../libraries/Blake3Node.sol";
import {Blob} from "../libraries/Blob.sol";
import {Bytes} from "../libraries/Bytes.sol";
import {LongBlob} from "../libraries/LongBlob.sol";
import {Levels} from "../libraries/Levels.sol";
import {Merkle} from "../libraries/Merkle.sol";
import {Site, Sites} from "../libraries/Sites.sol";
import {Slices} from "../libraries/Slices.sol";
import {StepCall} from "../libraries/StepCall.sol";
import {Trace} from "../libraries/Trace.sol";
import {Reader, Wire} from "../libraries/Wire.sol";

/// Checks of answers' content.
abstract contract Answers is Norms {
    using Sites for Site;
    using Wire for Reader;

    /// Refuses content that is no answer to the ask; tells whether it contradicts what is public.
    function _check(Dispute memory d, bytes20 words, Reader memory r)
        internal
        view
        returns (bool contradiction)
    {
        uint32 kind = _word(words, 0);
        uint32 a = _word(words, 1);
        uint32 b = _word(words, 2);
        if (kind == TOKENS) {
            uint256 next = Levels.next(a);
            bytes32 node = Merkle.fold(_hashes(r), d.claim.positions, next, a, b);
            _checkTreeNode(d, a, b, node);
        } else if (kind == TOKEN) {
            contradiction = _checkToken(d, a, r);
        } else if (kind == UNIT) {
            contradiction = _checkUnit(d, a, b, r);
        } else if (kind == DRAW) {
            _checkDraw(d, a, r);
        } else if (kind == DRAW_PART) {
            _checkDrawPart(d, a, b, r);
        } else {
            Site memory s = _site(d, b);
            if (kind == SUM) _checkSum(s, r);
            else if (kind == GROUP) _checkGroup(s, _word(words, 3), r);
            else if (kind == NORM) _checkNorm(s, _word(words, 3), r);
            else if (kind == KEYS) _checkKeys(d, words, s, r);
            else if (kind == KEY_PART) _checkKeyPart(d, words, s, r);
            else _checkRow(d, words, s, r);
        }
        r.done();
    }

    /// All hashes up to the end.
    function _hashes(Reader memory r) private pure returns (bytes32[] memory list) {
        uint256 n = r.rest(32);
        list = new bytes32[](n);
        for (uint256 i = 0; i < n; ++i) {
            list[i] = r.hash();
        }
    }

    /// A token: body root, sampled id, every layer's rows, the root of every unit.
    function _checkToken(Dispute memory d, uint32 pos, Reader memory r)
        private
        view
        returns (bool contradiction)
    {
        bytes32 body = r.hash();
        bool present = r.flag();
        uint32 id = present ? r.u32() : 0;
        _checkTreeNode(d, 0, pos, Trace.token(pos, body, present, id));

        uint256 count = r.u16();
        require(count == d.model.layers, ItemCount(count, d.model.layers));
        bytes32[] memory leaves = new bytes32[](count);
        for (uint256 l = 0; l < count; ++l) {
            bytes32 kv = r.hash();
            bool out = r.flag();
            if (out != ((l + 1) % d.model.stride == 0)) contradiction = true;
            leaves[l] = Trace.leaf(pos, l, kv, out, out ? r.hash() : bytes32(0));
        }
        bytes32 got = Merkle.root(leaves);
        require(got == body, OtherBody(got));

        bool samples = _samples(d.claim, pos);
        uint256 units = r.rest(32);
        uint256 expected = count + (samples ? 2 : 1);
        require(units == expected, ItemCount(units, expected));
        r.skip(units * 32);
        if (present != samples) return true;
        if (samples && id != _output(d, pos)) return true;
    }

    /// The id that the claim says was sampled at `pos`.
    function _output(Dispute memory d, uint256 pos) internal view returns (uint32) {
        bytes memory four =
            LongBlob.read(d.claim.outputIds, uint256(d.claim.outputs) * 4, (pos + 1 - d.claim.prompt) * 4, 4);
        // Four bytes.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint32(Bytes.unsigned(four, 0, 4));
    }

    /// A unit: the commitment of every site.
    function _checkUnit(Dispute memory d, uint32 pos, uint32 unit, Reader memory r)
        private
        view
        returns (bool contradiction)
    {
        (uint256 first, uint256 count) = _unitSites(d, unit);
        bytes32[] memory leaves = new bytes32[](count);
        for (uint256 i = 0; i < count; ++i) {
            uint256 kind = r.u8();
            uint256 len = _commitLength(kind) - 1;
            uint256 spot = r.skip(len);
            leaves[i] = _siteLeaf(first + i, kind, spot, len);
            if (_clashes(d, pos, unit, first + i, kind, Wire.wordAt(spot))) contradiction = true;
        }
        bytes32 got = Merkle.root(leaves);
        require(got == _unitRoot(d, pos, unit), OtherUnit(got));
    }

    /// First site of a unit and how many it has.
    function _unitSites(Dispute memory d, uint256 unit) private view returns (uint256 first, uint256 count) {
        if (unit == 0) return (0, d.model.firstLayerSite);
        if (unit > d.model.layers) return (d.model.epilogue, d.model.siteCount - d.model.epilogue);
        // Units of layers have sites, and these ascend: halve the range until a site of the unit is hit.
        uint256 low = d.model.firstLayerSite;
        uint256 high = d.model.epilogue;
        while (true) {
            Site memory s = _site(d, (low + high) / 2);
            if (s.unit == unit) return (s.unitFirst, s.unitSites);
            if (s.unit < unit) low = s.unitFirst + s.unitSites;
            else high = s.unitFirst;
        }
    }

    /// Whether a commitment contradicts the program or what the token commits.
    function _clashes(
        Dispute memory d,
        uint256 pos,
        uint256 unit,
        uint256 site,
        uint256 kind,
        bytes32 content
    ) private view returns (bool) {
        Site memory s = _site(d, site);
        if (kind != s.kind) return true;
        uint32 op = s.op();
        if (op == Sites.SAMPLE) {
            return Blake3Node.swap(uint256(content) >> 224) != _sampled(d, pos);
        }
        if (op != Sites.KV_APPEND && op != Sites.OUT) return false;
        // The token's answer has the rows of layer unit - 1.
        address token = _content(d.id, _words(TOKEN, pos, 0, 0, 0));
        (uint256 layers,) = _tokenLayout(d, pos);
        uint256 layer = unit - 1;
        uint256 spot = layers + 33 * layer + 32 * (layer / d.model.stride);
        if (op == Sites.KV_APPEND) return Blob.word(token, spot) != content;
        return (layer + 1) % d.model.stride == 0 && Blob.word(token, spot + 33) != content;
    }

    /// The chaining values of a row's pieces, or one piece.
    function _checkRow(Dispute memory d, bytes20 words, Site memory s, Reader memory r) private view {
        (uint256 total,) = _rowLength(d, _word(words, 2), s, _word(words, 3));
        uint256 piece = Slices.pieceLength(total);
        if (_word(words, 0) == ROW) {
            bytes32 got = Slices.join(_hashes(r), total, piece);
            require(got == _hashOf(d, words, s), OtherRow(got));
            return;
        }
        uint256 start = _word(words, 4) * piece;
        uint256 len = total - start < piece ? total - start : piece;
        require(r.left() == len, ItemCount(r.left(), len));
        uint256 spot = r.skip(len);
        if (total <= piece) {
            bytes32 got = Blake3Node.hashCalldata(spot, len);
            require(got == _hashOf(d, words, s), OtherPiece(got));
        } else {
            bytes32 got = Blake3Node.chainingValue(start / Slices.CHUNK, spot, len);
            require(got == Blob.word(_rowOf(d, words), start / piece * 32), OtherPiece(got));
        }
    }

    /// Where the row of a piece's ask is kept.
    function _rowOf(Dispute memory d, bytes20 words) private view returns (address) {
        return _content(d.id, _words(ROW, _word(words, 1), _word(words, 2), _word(words, 3), 0));
    }

    /// The hash of the side of a row that an ask names.
    function _hashOf(Dispute memory d, bytes20 words, Site memory s) private view returns (bytes32) {
        uint32 site = _word(words, 2);
        return _sideHash(_commit(d, _word(words, 1), site, s), site, _word(words, 3));
    }

    /// The maxima of a group, before the transform and after it: value and index each.
    function _checkGroup(Site memory s, uint256 group, Reader memory r) private pure {
        uint256[4] memory x;
        for (uint256 i = 0; i < 4; ++i) {
            x[i] = r.u32();
        }
        require(x[1] / s.group == group, MaximumOutside(x[1]));
        require(x[3] / s.group == group, MaximumOutside(x[3]));
        require(s.param(1) != 0 || (x[0] == x[2] && x[1] == x[3]), TwoMaxima());
    }

    /// The maxima and sums of an attention's element: they must give the published element.
    function _checkKeys(Dispute memory d, bytes20 words, Site memory s, Reader memory r) private view {
        uint32 pos = _word(words, 1);
        (uint256 lo, uint256 n) = _visible(s, pos);
        _maximumAt(r, lo, n, 2);
        uint256 unit = _maximumAt(r, lo, n, 2);
        r.skip(4);
        _inside(r.u32(), lo, n);
        uint256 parts = r.rest(16);
        uint256 expected = _partLength(n - lo);
        expected = (n - lo + expected - 1) / expected;
        require(parts == expected, ItemCount(parts, expected));
        bytes memory got = _finished(s, unit, parts, r);
        require(Bytes.same(got, _publishedElement(d, words, s)), OtherElement());
    }

    /// The element that the parts of an attention give.
    function _finished(Site memory s, uint256 unit, uint256 parts, Reader memory r)
        private
        view
        returns (bytes memory)
    {
        bytes memory head = abi.encodePacked(
            uint8(0x24),
            // Bits: 15 or 23, and at most 30.
            // forge-lint: disable-next-line(unsafe-typecast)
            uint8(s.param(5)),
            uint8(s.param(8)),
            // Flag and exponent.
            // forge-lint: disable-next-line(unsafe-typecast)
            bytes3(uint24(unit)),
            Bytes.le16(parts)
        );
        return StepCall.run(Bytes.append(head, r.skip(16 * parts), 16 * parts), 4);
    }

    /// The element that an ask names.
    function _publishedElement(Dispute memory d, bytes20 words, Site memory s)
        private
        view
        returns (bytes memory)
    {
        return _element(d, _word(words, 1), _word(words, 2), s, 0, _word(words, 3));
    }

    /// A maximum that may be absent: its `size` bytes, flag in front, as a number; its key must be visible.
    function _maximumAt(Reader memory r, uint256 lo, uint256 n, uint256 size)
        private
        pure
        returns (uint256 x)
    {
        if (!r.flag()) return 0;
        // The flag in front of the bytes.
        // forge-lint: disable-next-line(incorrect-shift)
        x = 1 << (8 * size) | uint256(Wire.wordAt(r.skip(size))) >> (256 - 8 * size);
        _inside(r.u32(), lo, n);
    }

    function _inside(uint256 key, uint256 lo, uint256 n) private pure {
        require(key >= lo && key < n, MaximumOutside(key));
    }

    /// The keys of a part: they must add up to it.
    function _checkKeyPart(Dispute memory d, bytes20 words, Site memory s, Reader memory r) private view {
        (uint256 lo, uint256 n) = _visible(s, _word(words, 1));
        uint256 len = _partLength(n - lo);
        uint256 part = _word(words, 4);
        uint256 expected = n - lo - part * len < len ? n - lo - part * len : len;
        uint256 got = r.rest(9);
        require(got == expected, ItemCount(got, expected));
        bytes memory head = abi.encodePacked(uint8(0x23), Bytes.le16(got));
        bytes memory sums = StepCall.run(Bytes.append(head, r.skip(9 * got), 9 * got), 16);
        // Parts are what ends the answer.
        uint256 behind = 16 * ((n - lo + len - 1) / len - part);
        require(Bytes.same(sums, _keysTail(d, words, behind)), OtherSums(part));
    }

    /// 16 bytes of the published sums over keys, `behind` bytes before their end.
    function _keysTail(Dispute memory d, bytes20 words, uint256 behind) private view returns (bytes memory) {
        address keys = _content(d.id, _words(KEYS, _word(words, 1), _word(words, 2), _word(words, 3), 0));
        return Blob.read(keys, Blob.size(keys) - behind, 16);
    }

    /// The partial sums of an element of a linear, of any size.
    function _checkSum(Site memory s, Reader memory r) private pure {
        uint256 n = r.rest(8);
        uint256 expected = Levels.linearParts(s.param(1), s.param(2));
        require(n == expected, ItemCount(n, expected));
        r.skip(n * 8);
    }
}
