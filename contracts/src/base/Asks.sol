// Asks: what each may name, and which published answer it builds on.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Dispute, Published} from "./Published.sol";
import {Levels} from "../libraries/Levels.sol";
import {Merkle} from "../libraries/Merkle.sol";
import {Site, Sites} from "../libraries/Sites.sol";
import {Slices} from "../libraries/Slices.sol";

/// The tree of asks.
abstract contract Asks is Published {
    using Sites for Site;

    /// Refuses an ask that names nothing; tells which answer it builds on, none for the root of the token tree.
    function _above(Dispute memory d, bytes20 words) internal view returns (bytes20) {
        uint32 kind = _word(words, 0);
        uint32 a = _word(words, 1);
        uint32 b = _word(words, 2);
        if (kind == TOKENS) {
            _unused(words, 3);
            return _aboveTokens(d, a, b);
        }
        require(kind <= NORM, NoSuchAsk(kind));
        require(a < d.claim.positions, OutsideRange(a, d.claim.positions));
        if (kind == TOKEN) {
            _unused(words, 2);
            return _tokensAsk(d, 0, a);
        }
        if (kind == UNIT) {
            _unused(words, 3);
            uint256 units = uint256(d.model.layers) + (_samples(d.claim, a) ? 2 : 1);
            require(b < units, OutsideRange(b, units));
            return _words(TOKEN, a, 0, 0, 0);
        }
        if (kind == DRAW || kind == DRAW_PART) return _aboveDraw(d, words, kind, a, b);
        return _aboveRow(d, words, kind, a, b);
    }

    function _aboveDraw(Dispute memory d, bytes20 words, uint32 kind, uint32 pos, uint32 part)
        private
        view
        returns (bytes20)
    {
        if (kind == DRAW) {
            _unused(words, 2);
            require(d.claim.temperatureQ16 != 0, OtherSampler(0));
            return _words(UNIT, pos, _sampleSite(d).unit, 0, 0);
        }
        _unused(words, 3);
        (uint256 parts,) = _idParts(d);
        require(part < parts, OutsideRange(part, parts));
        return _words(DRAW, pos, 0, 0, 0);
    }

    function _aboveTokens(Dispute memory d, uint32 height, uint32 index) private pure returns (bytes20) {
        uint256 top = Merkle.height(d.claim.positions);
        require(height != 0 && height <= top, OutsideRange(height, top));
        uint256 width = Merkle.width(d.claim.positions, height);
        require(index < width, OutsideRange(index, width));
        if (height != top) {
            require(Levels.next(Levels.above(height, top)) == height, NotALevel(height));
        }
        return _tokensAsk(d, height, index);
    }

    function _aboveRow(Dispute memory d, bytes20 words, uint32 kind, uint32 pos, uint32 site)
        private
        view
        returns (bytes20)
    {
        Site memory s = _site(d, site);
        bytes20 unit = _words(UNIT, pos, s.unit, 0, 0);
        uint32 c = _word(words, 3);
        uint32 e = _word(words, 4);
        if (kind == KEY_PART) {
            require(s.op() == Sites.ATTENTION, WrongOp(site, s.op()));
            (uint256 lo, uint256 n) = _visible(s, pos);
            uint256 parts = (n - lo + _partLength(n - lo) - 1) / _partLength(n - lo);
            require(e < parts, OutsideRange(e, parts));
            return _words(KEYS, pos, site, c, 0);
        }
        if (kind == SUM || kind == KEYS) {
            _unused(words, 4);
            require(s.op() == (kind == SUM ? Sites.LINEAR : Sites.ATTENTION), WrongOp(site, s.op()));
            (bytes20 piece,,) = _pieceAsk(d, pos, site, s, 0, c);
            return piece;
        }
        if (kind == GROUP) {
            _unused(words, 4);
            require(s.op() == Sites.QUANT, WrongOp(site, s.op()));
            require(c < s.cols / s.group, OutsideRange(c, s.cols / s.group));
            return unit;
        }
        if (kind == NORM) {
            _unused(words, 4);
            require(s.op() == Sites.RMS_NORM || s.op() == Sites.LAYER_NORM, WrongOp(site, s.op()));
            require(c < s.cols / s.param(3), OutsideRange(c, s.cols / s.param(3)));
            return unit;
        }
        (uint256 total,) = _rowLength(d, site, s, c);
        uint256 count = Slices.pieces(total, Slices.pieceLength(total));
        if (kind == ROW) {
            _unused(words, 4);
            require(count > 1, OnePiece(site));
            return unit;
        }
        require(e < count, OutsideRange(e, count));
        return count > 1 ? _words(ROW, pos, site, c, 0) : unit;
    }

    /// Refuses words from `from` on that are not 0.
    function _unused(bytes20 words, uint256 from) private pure {
        for (uint256 i = from; i < 5; ++i) {
            uint32 got = _word(words, i);
            require(got == 0, UnusedWord(i, got));
        }
    }
}
