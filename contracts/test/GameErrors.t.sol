// Asks and answers that do not count, each refused for its own reason; the game goes on as if they had not been made.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IPocVerifier} from "../src/interfaces/IPocVerifier.sol";
import {Merkle} from "../src/libraries/Merkle.sol";
import {Sites} from "../src/libraries/Sites.sol";
import {Slices} from "../src/libraries/Slices.sol";
import {Wire} from "../src/libraries/Wire.sol";
import {GameStage} from "./GameStage.sol";

contract GameErrorsTest is GameStage {
    // --- asks ----------------------------------------------------------------------------------

    function test_rejects_asks_of_kinds_that_there_are_not() public {
        _stage(SUM_GAME, 0);
        _refuseAsk(IPocVerifier.NoSuchAsk.selector, _ask(claim, 12, 0, 0, 0, 0));
        _goesOn(0);
    }

    function test_rejects_words_that_an_ask_leaves_empty() public {
        _stage(SUM_GAME, 0);
        _refuseAsk(IPocVerifier.UnusedWord.selector, _ask(claim, 0, 4, 0, 0, 1));
        _refuseAsk(IPocVerifier.UnusedWord.selector, _ask(claim, 1, 4, 7, 0, 0));
        _goesOn(0);
    }

    function test_rejects_asks_outside_the_trace() public {
        _stage(SUM_GAME, 0);
        _refuseAsk(IPocVerifier.OutsideRange.selector, _ask(claim, 0, 5, 0, 0, 0));
        _refuseAsk(IPocVerifier.OutsideRange.selector, _ask(claim, 0, 0, 0, 0, 0));
        _refuseAsk(IPocVerifier.OutsideRange.selector, _ask(claim, 0, 4, 1, 0, 0));
        _refuseAsk(IPocVerifier.OutsideRange.selector, _ask(claim, 1, 12, 0, 0, 0));
        _goesOn(0);
    }

    function test_rejects_heights_that_are_no_level_of_the_game() public {
        _stage(TREE_GAME, 2);
        _refuseAsk(IPocVerifier.NotALevel.selector, _ask(_here[g.ids[1]], 0, 4, 0, 0, 0));
        _goesOn(2);
    }

    function test_rejects_asks_for_what_has_no_published_parent() public {
        _stage(SUM_GAME, 2);
        _refuseAsk(IPocVerifier.NotPublished.selector, _ask(_here[g.ids[1]], 2, 5, 0, 0, 0));
        _goesOn(2);
    }

    function test_rejects_asks_that_build_on_another_answer() public {
        _stage(SUM_GAME, 2);
        _refuseAsk(IPocVerifier.OtherAnswer.selector, _naming(_move(g, 2), claim));
        _goesOn(2);
    }

    function test_rejects_asks_for_what_is_published() public {
        _stage(SUM_GAME, 2);
        _refuseAsk(IPocVerifier.Published.selector, _move(g, 0));
        _goesOn(2);
    }

    function test_rejects_a_second_ask_while_an_answer_is_owed() public {
        _stage(SUM_GAME, 1);
        _refuseAsk(IPocVerifier.AnswerOwed.selector, _move(g, 0));
        _goesOn(1);
    }

    function test_rejects_sums_of_what_is_no_linear() public {
        _stage(SUM_GAME, 6);
        // Site 1 is the first norm.
        _refuseAsk(IPocVerifier.WrongOp.selector, _ask(_here[g.ids[5]], 5, 5, 1, 0, 0));
        _goesOn(6);
    }

    function test_rejects_pieces_of_a_row_of_one_piece_and_sides_that_it_lacks() public {
        _stage(SUM_GAME, 6);
        _refuseAsk(IPocVerifier.OnePiece.selector, _ask(_here[g.ids[5]], 3, 5, 1, 0, 0));
        _refuseAsk(IPocVerifier.NoSuchSide.selector, _ask(_here[g.ids[5]], 3, 5, 1, 1, 0));
        _refuseAsk(Sites.NoSuchSite.selector, _ask(_here[g.ids[5]], 4, 5, 999, 0, 0));
        _refuseAsk(IPocVerifier.OutsideRange.selector, _ask(_here[g.ids[5]], 4, 5, 1, 0, 1));
        _goesOn(6);
    }

    function test_rejects_asks_of_another_length() public {
        _stage(SUM_GAME, 0);
        _refuseAsk(Wire.MoveTooShort.selector, _cut(_ask(claim, 0, 4, 0, 0, 0), 1));
        _refuseAsk(Wire.MoveTooLong.selector, bytes.concat(_ask(claim, 0, 4, 0, 0, 0), hex"00"));
        _goesOn(0);
    }

    function test_rejects_moves_of_strangers() public {
        _stage(SUM_GAME, 1);
        bytes memory ask = _move(g, 0);
        bytes memory answer = _move(g, 1);
        vm.expectPartialRevert(IPocVerifier.NoGame.selector);
        vm.prank(second);
        poc.ask(claim, ask);
        vm.expectPartialRevert(IPocVerifier.NoGame.selector);
        vm.prank(second);
        poc.accuse(claim, ask);
        vm.expectPartialRevert(IPocVerifier.NotTheNeuron.selector);
        vm.prank(challenger);
        poc.answer(answer);
        vm.expectPartialRevert(IPocVerifier.UnknownClaim.selector);
        vm.prank(challenger);
        poc.ask("nothing", ask);
        _goesOn(1);
    }

    // --- answers -------------------------------------------------------------------------------

    function test_rejects_answers_to_nothing_and_replays() public {
        _stage(SUM_GAME, 2);
        _refuseAnswer(IPocVerifier.NotAsked.selector, _move(g, 1));
        _refuseAnswer(IPocVerifier.NotAsked.selector, _naming(_move(g, 1), "nothing"));
        _goesOn(2);
    }

    function test_rejects_nodes_of_another_tree() public {
        _stage(SUM_GAME, 1);
        _refuseAnswer(IPocVerifier.OtherTree.selector, _flip(_move(g, 1), 40));
        _refuseAnswer(Merkle.NodeCount.selector, _cut(_move(g, 1), 32));
        _refuseAnswer(Wire.RaggedList.selector, _cut(_move(g, 1), 1));
        _goesOn(1);
    }

    function test_rejects_another_token() public {
        _stage(SUM_GAME, 3);
        // Position 5 of a prompt of 7: body, flag 0, number of layers, rows.
        _refuseAnswer(IPocVerifier.OtherTree.selector, _flip(_move(g, 3), 32));
        bytes memory two = _move(g, 3);
        two[64] = 0x02;
        _refuseAnswer(Wire.BadFlag.selector, two);
        _refuseAnswer(IPocVerifier.ItemCount.selector, _flip(_move(g, 3), 65));
        _refuseAnswer(IPocVerifier.OtherBody.selector, _flip(_move(g, 3), 67));
        _refuseAnswer(IPocVerifier.ItemCount.selector, _cut(_move(g, 3), 32));
        _refuseAnswer(Wire.MoveTooShort.selector, _cut(_move(g, 3), 190));
        _goesOn(3);
    }

    function test_rejects_another_unit() public {
        _stage(SUM_GAME, 5);
        _refuseAnswer(IPocVerifier.OtherUnit.selector, _flip(_move(g, 5), 33));
        bytes memory nine = _move(g, 5);
        nine[32] = 0x09;
        _refuseAnswer(IPocVerifier.BadCommitment.selector, nine);
        _refuseAnswer(Wire.MoveTooShort.selector, _cut(_move(g, 5), 33));
        _refuseAnswer(Wire.MoveTooLong.selector, bytes.concat(_move(g, 5), hex"00"));
        _goesOn(5);
    }

    function test_rejects_another_row() public {
        _stage(ROW_GAME, 7);
        _refuseAnswer(IPocVerifier.OtherRow.selector, _flip(_move(g, 7), 32));
        _refuseAnswer(Slices.PieceCount.selector, _cut(_move(g, 7), 32));
        _goesOn(7);
    }

    function test_rejects_another_piece_of_a_row() public {
        _stage(ROW_GAME, 9);
        _refuseAnswer(IPocVerifier.OtherPiece.selector, _flip(_move(g, 9), 32));
        _refuseAnswer(IPocVerifier.ItemCount.selector, _cut(_move(g, 9), 1));
        _goesOn(9);
    }

    function test_rejects_another_piece_of_a_short_row() public {
        _stage(SUM_GAME, 7);
        _refuseAnswer(IPocVerifier.OtherPiece.selector, _flip(_move(g, 7), 40));
        _goesOn(7);
    }

    function test_rejects_another_number_of_sums() public {
        _stage(SUM_GAME, 9);
        _refuseAnswer(IPocVerifier.ItemCount.selector, _cut(_move(g, 9), 8));
        _goesOn(9);
    }

    function test_rejects_maxima_that_none_can_be() public {
        _stage(GROUP_GAME, 9);
        // Value and index before the transform, then after it.
        bytes memory outside = _move(g, 9);
        outside[36] = 0x40;
        _refuseAnswer(IPocVerifier.MaximumOutside.selector, outside);
        _refuseAnswer(IPocVerifier.TwoMaxima.selector, _flip(_move(g, 9), 40));
        _refuseAnswer(Wire.MoveTooShort.selector, _cut(_move(g, 9), 1));
        _refuseAnswer(Wire.MoveTooLong.selector, bytes.concat(_move(g, 9), hex"00"));
        _goesOn(9);
    }

    function test_rejects_groups_of_what_is_no_quantisation() public {
        _stage(GROUP_GAME, 6);
        _refuseAsk(IPocVerifier.WrongOp.selector, _ask(_here[g.ids[5]], 8, 5, 1, 0, 0));
        _goesOn(6);
    }

    function test_rejects_sums_over_keys_that_do_not_give_the_element() public {
        _stage(KEY_GAME, 9);
        // Both units with their keys (7 bytes each), the largest score and its key, then the parts.
        _refuseAnswer(IPocVerifier.OtherElement.selector, _flip(_move(g, 9), 58));
        bytes memory outside = _move(g, 9);
        outside[35] = 0x7f;
        _refuseAnswer(IPocVerifier.MaximumOutside.selector, outside);
        outside = _move(g, 9);
        outside[50] = 0x7f;
        _refuseAnswer(IPocVerifier.MaximumOutside.selector, outside);
        _refuseAnswer(IPocVerifier.ItemCount.selector, _cut(_move(g, 9), 16));
        _refuseAnswer(Wire.RaggedList.selector, _cut(_move(g, 9), 1));
        _goesOn(9);
    }

    function test_rejects_keys_that_do_not_add_up() public {
        _stage(KEY_GAME, 11);
        _refuseAnswer(IPocVerifier.OtherSums.selector, _flip(_move(g, 11), 32));
        _refuseAnswer(IPocVerifier.ItemCount.selector, _cut(_move(g, 11), 9));
        _goesOn(11);
    }

    function test_rejects_parts_of_keys_that_there_are_not() public {
        _stage(KEY_GAME, 10);
        bytes memory ask = _move(g, 10);
        ask[48] = 0x40;
        _refuseAsk(IPocVerifier.OutsideRange.selector, ask);
        _goesOn(10);
    }
}
