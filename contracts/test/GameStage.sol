// A recorded game played up to a move, and ways to spoil the next one.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {GameBase, Recorded} from "./GameBase.sol";

/// A recorded game played up to a move, and moves that are refused there.
abstract contract GameStage is GameBase {
    /// A lie about a linear's sum: Tokens, Token, Unit, Piece, Sum, accusation.
    uint256 internal constant SUM_GAME = 0;
    /// A lie about a logit's sum: its row has two pieces.
    uint256 internal constant ROW_GAME = 9;
    /// Another first id: an embedding of the prompt.
    uint256 internal constant EMBED_GAME = 11;
    /// A tree of two levels.
    uint256 internal constant TREE_GAME = 17;

    /// A lie about a maximum of a plain quantisation: Tokens, Token, Unit, Piece, Group, accusation.
    uint256 internal constant GROUP_GAME = 18;
    /// A lie about a sum over keys: Tokens, Token, Unit, Piece, Keys, KeyPart, accusation.
    uint256 internal constant KEY_GAME = 37;
    /// A largest score that another key exceeds.
    uint256 internal constant MAX_GAME = 39;
    /// A head without a unit of its keys.
    uint256 internal constant UNIT_GAME = 42;

    // Places in a linear part's accusation: the input is a quantised row of 640 bytes.
    uint256 internal constant PATH_FLAG = 114;
    uint256 internal constant CHUNKS = 115;
    uint256 internal constant CHUNK_LENGTH = 117;
    uint256 internal constant CHUNK_BYTES = 119;
    uint256 internal constant CHUNK_SIBLINGS = 759;
    uint256 internal constant TENSOR = 760;

    Recorded internal g;
    uint256 internal jobId;
    address internal neuron;
    bytes32 internal claim;

    /// Plays a game up to move `upTo`.
    function _stage(uint256 game, uint256 upTo) internal {
        _keepFor(game);
        g = _recorded(game);
        (jobId, neuron) = _claimed(g);
        claim = _open(g, jobId, neuron, challenger);
        _play(g, claim, neuron, challenger, 0, upTo);
    }

    function _ask(bytes32 to, uint32 kind, uint32 a, uint32 b, uint32 c, uint32 d)
        internal
        pure
        returns (bytes memory)
    {
        return bytes.concat(to, _le(kind), _le(a), _le(b), _le(c), _le(d));
    }

    function _le(uint32 x) internal pure returns (bytes4) {
        return bytes4((x >> 24) | ((x >> 8) & 0xff00) | ((x << 8) & 0xff0000) | (x << 24));
    }

    function _flip(bytes memory move, uint256 spot) internal pure returns (bytes memory) {
        move[spot] ^= 0x01;
        return move;
    }

    function _cut(bytes memory move, uint256 bytesLess) internal pure returns (bytes memory out) {
        out = new bytes(move.length - bytesLess);
        for (uint256 i = 0; i < out.length; ++i) {
            out[i] = move[i];
        }
    }

    function _refuseAsk(bytes4 why, bytes memory move) internal {
        vm.expectPartialRevert(why);
        vm.prank(challenger);
        poc.ask(claim, move);
    }

    function _refuseAnswer(bytes4 why, bytes memory move) internal {
        vm.expectPartialRevert(why);
        vm.prank(neuron);
        poc.answer(move);
    }

    function _refuseAccusation(bytes4 why, bytes memory move) internal {
        vm.expectPartialRevert(why);
        vm.prank(challenger);
        poc.accuse(claim, move);
    }

    /// Plays the rest: what was refused changed nothing.
    function _goesOn(uint256 from) internal {
        _play(g, claim, neuron, challenger, from, g.moves.length);
        _whole();
    }
}
