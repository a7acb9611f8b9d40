// Moves about norms, elements, cached and out rows that do not count, each refused for its own reason; the game goes on
// as if they had not been made.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IPocVerifier} from "../src/interfaces/IPocVerifier.sol";
import {Wire} from "../src/libraries/Wire.sol";
import {GameStage} from "./GameStage.sol";

contract RowErrorsTest is GameStage {
    /// A wrong element of an RMS norm: Tokens, Token, Unit, Piece, Norm, accusation.
    uint256 private constant RMS_GAME = 0;
    /// A wrong element of a sum of rows: Tokens, Token, Unit, Piece, accusation.
    uint256 private constant ADD_GAME = 6;
    /// A byte of a cached row.
    uint256 private constant RECORD_GAME = 8;
    /// An out row: Tokens, Token, Unit, accusation.
    uint256 private constant OUT_GAME = 10;
    /// A wrong element of a layer norm, in two parts: Tokens, Token, Unit, Row, Piece, Norm, accusation.
    uint256 private constant LAYER_GAME = 18;
    /// A wrong pair in halves.
    uint256 private constant ROPE_GAME = 20;
    /// A wrong element of a unit without a gate: Tokens, Token, Unit, Piece, accusation.
    uint256 private constant ACT_GAME = 22;

    /// Nine asks, then an accusation.
    uint256 private constant ASKS_GAME = 41;

    // Places in a move, behind its id: kind, position, site.
    uint256 private constant KIND = 32;
    uint256 private constant SITE = 32 + 5;
    // Places in an answer to `Norm` of an RMS norm: number of plain sums, magnitude, its index, squares.
    uint256 private constant SUMS = 32;
    uint256 private constant MAGNITUDE = 32 + 2;
    uint256 private constant INDEX = 32 + 10;

    function _vectors() internal pure override returns (string memory) {
        return "../vectors/row_games.json";
    }

    /// The site of an accusation.
    function _siteOf(bytes memory move) private pure returns (uint32) {
        return uint32(uint8(move[SITE])) | uint32(uint8(move[SITE + 1])) << 8;
    }

    function _of(bytes memory move, uint8 kind) private pure returns (bytes memory) {
        move[KIND] = bytes1(kind);
        return move;
    }

    /// The game asks as often as any may.
    function test_rejects_asks_beyond_the_longest_way_down() public {
        _stage(ASKS_GAME, 18);
        assertEq(poc.game(claim, challenger).asks, 9, "asks so far");
        _refuseAsk(IPocVerifier.TooManyAsks.selector, _ask(_here[g.ids[1]], 1, 8, 0, 0, 0));
        _goesOn(18);
    }

    function test_rejects_asks_for_norms_that_there_are_not() public {
        _stage(RMS_GAME, 8);
        uint32 site = _siteOf(_move(g, 10));
        bytes32 unit = _here[g.ids[5]];
        // The site behind a norm is its quantisation.
        _refuseAsk(IPocVerifier.WrongOp.selector, _ask(unit, 11, 9, site + 1, 0, 0));
        _refuseAsk(IPocVerifier.OutsideRange.selector, _ask(unit, 11, 9, site, 1, 0));
        _refuseAsk(IPocVerifier.UnusedWord.selector, _ask(unit, 11, 9, site, 0, 1));
        _refuseAsk(IPocVerifier.NoSuchAsk.selector, _ask(unit, 12, 9, site, 0, 0));
        _goesOn(8);
    }

    function test_rejects_numbers_of_another_norm() public {
        _stage(RMS_GAME, 9);
        // A plain sum that an RMS norm does not have, a part less, a part and a bit.
        _refuseAnswer(IPocVerifier.ItemCount.selector, _flip(_move(g, 9), SUMS));
        _refuseAnswer(IPocVerifier.ItemCount.selector, _cut(_move(g, 9), 8));
        _refuseAnswer(Wire.RaggedList.selector, _cut(_move(g, 9), 1));
        _refuseAnswer(IPocVerifier.MagnitudeTooLarge.selector, _flip(_move(g, 9), MAGNITUDE + 4));
        _refuseAnswer(IPocVerifier.MaximumOutside.selector, _flip(_move(g, 9), INDEX + 1));
        _goesOn(9);
    }

    function test_rejects_numbers_of_another_layer_norm() public {
        _stage(LAYER_GAME, 11);
        // A plain sum less than it has parts.
        bytes memory one = _move(g, 11);
        one[SUMS] = 0x01;
        _refuseAnswer(IPocVerifier.ItemCount.selector, one);
        _goesOn(11);
    }

    function test_rejects_accusations_of_a_norm_that_are_another_ones() public {
        _stage(RMS_GAME, 10);
        bytes memory move = _move(g, 10);
        // The last byte says whether there is a bias.
        bytes memory biased = _flip(_move(g, 10), move.length - 1);
        _refuseAccusation(IPocVerifier.OpeningPresence.selector, biased);
        _refuseAccusation(IPocVerifier.WrongOp.selector, _of(_move(g, 10), 18));
        _refuseAccusation(IPocVerifier.WrongOp.selector, _flip(_of(_move(g, 10), 21), SITE));
        _goesOn(10);
    }

    function test_rejects_elements_with_an_input_too_many_or_too_few() public {
        _stage(ACT_GAME, 8);
        uint256 last = _move(g, 8).length - 1;
        _refuseAccusation(IPocVerifier.OpeningPresence.selector, _flip(_move(g, 8), last));
        _refuseAccusation(IPocVerifier.WrongOp.selector, _of(_move(g, 8), 23));
        _refuseAccusation(IPocVerifier.WrongOp.selector, _of(_move(g, 8), 24));
        _refuseAccusation(Wire.MoveTooLong.selector, bytes.concat(_move(g, 8), hex"00"));
        _goesOn(8);
    }

    function test_rejects_elements_of_ops_that_have_other_leaves() public {
        _stage(ADD_GAME, 8);
        _refuseAccusation(IPocVerifier.WrongOp.selector, _of(_move(g, 8), 14));
        _refuseAccusation(IPocVerifier.WrongOp.selector, _of(_move(g, 8), 15));
        _refuseAccusation(IPocVerifier.WrongOp.selector, _of(_move(g, 8), 21));
        _goesOn(8);
    }

    function test_rejects_cut_records_and_pairs() public {
        _stage(RECORD_GAME, 8);
        _refuseAccusation(IPocVerifier.WrongOp.selector, _of(_move(g, 8), 22));
        _refuseAccusation(Wire.MoveTooShort.selector, _cut(_move(g, 8), 1));
        _goesOn(8);
    }

    function test_rejects_pairs_of_what_is_not_rotated() public {
        _stage(ROPE_GAME, 10);
        _refuseAccusation(IPocVerifier.WrongOp.selector, _of(_move(g, 10), 22));
        _refuseAccusation(Wire.MoveTooShort.selector, _cut(_move(g, 10), 1));
        _goesOn(10);
    }

    function test_rejects_out_rows_of_other_sites() public {
        _stage(OUT_GAME, 6);
        bytes memory move = _move(g, 6);
        move[SITE] = bytes1(uint8(move[SITE]) - 1);
        _refuseAccusation(IPocVerifier.WrongOp.selector, move);
        _goesOn(6);
    }
}
