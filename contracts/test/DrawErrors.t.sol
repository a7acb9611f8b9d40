// Moves about random draws that do not count, each refused for its own reason; the game goes on as if they had not been
// made.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IPocVerifier} from "../src/interfaces/IPocVerifier.sol";
import {Wire} from "../src/libraries/Wire.sol";
import {GameStage} from "./GameStage.sol";

contract DrawErrorsTest is GameStage {
    /// A lie about a draw's sums: Tokens, Token, Unit, Draw, DrawPart, accusation.
    uint256 private constant DRAW_GAME = 49;
    /// A largest logit that is not attained: Tokens, Token, Unit, Draw, accusation.
    uint256 private constant MAX_LOGIT_GAME = 52;

    // Places in an answer to `Draw`, behind the ask's id.
    uint256 private constant MAX_ID = 32 + 4;
    uint256 private constant CUT_ID = 32 + 20;
    uint256 private constant SUMS = 32 + 28;
    // Places in accusations, behind kind and position.
    uint256 private constant WHAT = 32 + 5;
    uint256 private constant ID = 32 + 6;
    uint256 private constant PART = 32 + 5;
    uint256 private constant SUB = 32 + 9;

    function test_rejects_draws_of_a_greedy_job() public {
        _stage(SUM_GAME, 6);
        _refuseAsk(IPocVerifier.OtherSampler.selector, _ask(_here[g.ids[5]], 9, 8, 0, 0, 0));
        _goesOn(6);
    }

    function test_rejects_better_ids_of_a_random_job() public {
        _stage(DRAW_GAME, 6);
        _refuseAccusation(
            IPocVerifier.OtherSampler.selector, bytes.concat(_here[g.ids[5]], hex"0b", _le(11), _le(3))
        );
        _goesOn(6);
    }

    function test_rejects_draws_where_nothing_is_sampled_and_parts_that_there_are_not() public {
        _stage(DRAW_GAME, 6);
        _refuseAsk(IPocVerifier.NotPublished.selector, _ask(_here[g.ids[5]], 9, 3, 0, 0, 0));
        _refuseAsk(IPocVerifier.OutsideRange.selector, _ask(_here[g.ids[5]], 9, 12, 0, 0, 0));
        _refuseAsk(IPocVerifier.UnusedWord.selector, _ask(_here[g.ids[5]], 9, 11, 1, 0, 0));
        _refuseAsk(IPocVerifier.OutsideRange.selector, _ask(_here[g.ids[5]], 10, 11, 150, 0, 0));
        _refuseAsk(IPocVerifier.UnusedWord.selector, _ask(_here[g.ids[5]], 10, 11, 0, 1, 0));
        _refuseAsk(IPocVerifier.NotPublished.selector, _ask(_here[g.ids[5]], 10, 11, 0, 0, 0));
        _goesOn(6);
    }

    function test_rejects_draws_that_do_not_add_up() public {
        _stage(DRAW_GAME, 7);
        bytes memory move = _move(g, 7);
        // Top-k's count, then the mass below the id.
        _refuseAnswer(IPocVerifier.OtherDraw.selector, _flip(_move(g, 7), SUMS));
        move[SUMS + 31] = 0x7f;
        _refuseAnswer(IPocVerifier.OtherDraw.selector, move);
        move = _move(g, 7);
        move[MAX_ID + 3] = 0x01;
        _refuseAnswer(IPocVerifier.OutsideRange.selector, move);
        move = _move(g, 7);
        move[CUT_ID + 3] = 0x01;
        _refuseAnswer(IPocVerifier.OutsideRange.selector, move);
        _refuseAnswer(IPocVerifier.ItemCount.selector, _cut(_move(g, 7), 32));
        _refuseAnswer(Wire.RaggedList.selector, _cut(_move(g, 7), 1));
        _goesOn(7);
    }

    function test_rejects_ids_that_do_not_add_up_to_their_part() public {
        _stage(DRAW_GAME, 9);
        _refuseAnswer(IPocVerifier.OtherSums.selector, _flip(_move(g, 9), 32));
        _refuseAnswer(IPocVerifier.ItemCount.selector, _cut(_move(g, 9), 32));
        _refuseAnswer(IPocVerifier.ItemCount.selector, bytes.concat(_move(g, 9), new bytes(32)));
        _goesOn(9);
    }

    function test_rejects_accusations_of_other_ids_than_a_heads() public {
        _stage(MAX_LOGIT_GAME, 8);
        _refuseAccusation(IPocVerifier.OtherId.selector, _flip(_move(g, 8), ID));
        bytes memory move = _move(g, 8);
        move[WHAT] = 0x02;
        _refuseAccusation(IPocVerifier.OtherId.selector, move);
        move[WHAT] = 0x04;
        _refuseAccusation(IPocVerifier.OutsideRange.selector, move);
        _refuseAccusation(IPocVerifier.OtherAnswer.selector, _naming(_move(g, 8), _here[g.ids[5]]));
        _goesOn(8);
    }

    function test_rejects_accusations_of_sums_that_are_not_published() public {
        _stage(DRAW_GAME, 10);
        bytes memory move = _move(g, 10);
        move[SUB] = 0x02;
        _refuseAccusation(IPocVerifier.OutsideRange.selector, move);
        move = _move(g, 10);
        move[PART] = move[PART] == 0 ? bytes1(0x01) : bytes1(0);
        _refuseAccusation(IPocVerifier.NotPublished.selector, move);
        _refuseAccusation(IPocVerifier.OtherAnswer.selector, _naming(_move(g, 10), claim));
        _goesOn(10);
    }
}
