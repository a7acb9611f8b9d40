// Games about ops that are cut down to one element (norms, sums, units, pairs, cached and out rows, learned positions)
// end the same way here as in Rust, move by move.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {GamePlay} from "./GamePlay.sol";

contract RowGamesTest is GamePlay {
    /// Games in the vectors.
    uint256 private constant GAMES = 42;

    function _vectors() internal pure override returns (string memory) {
        return "../vectors/row_games.json";
    }

    function _snapshot() internal pure override returns (string memory) {
        return "RowAccusations";
    }

    function test_EveryRecordedGameIsHere() public view {
        assertTrue(vm.keyExistsJson(json, string.concat(".games[", vm.toString(GAMES - 1), "]")), "last");
        assertTrue(!vm.keyExistsJson(json, string.concat(".games[", vm.toString(GAMES), "]")), "one more");
    }

    function test_Game00() public {
        _game(0);
    }

    function test_Game01() public {
        _game(1);
    }

    function test_Game02() public {
        _game(2);
    }

    function test_Game03() public {
        _game(3);
    }

    function test_Game04() public {
        _game(4);
    }

    function test_Game05() public {
        _game(5);
    }

    function test_Game06() public {
        _game(6);
    }

    function test_Game07() public {
        _game(7);
    }

    function test_Game08() public {
        _game(8);
    }

    function test_Game09() public {
        _game(9);
    }

    function test_Game10() public {
        _game(10);
    }

    function test_Game11() public {
        _game(11);
    }

    function test_Game12() public {
        _game(12);
    }

    function test_Game13() public {
        _game(13);
    }

    function test_Game14() public {
        _game(14);
    }

    function test_Game15() public {
        _game(15);
    }

    function test_Game16() public {
        _game(16);
    }

    function test_Game17() public {
        _game(17);
    }

    function test_Game18() public {
        _game(18);
    }

    function test_Game19() public {
        _game(19);
    }

    function test_Game20() public {
        _game(20);
    }

    function test_Game21() public {
        _game(21);
    }

    function test_Game22() public {
        _game(22);
    }

    function test_Game23() public {
        _game(23);
    }

    function test_Game24() public {
        _game(24);
    }

    function test_Game25() public {
        _game(25);
    }

    function test_Game26() public {
        _game(26);
    }

    function test_Game27() public {
        _game(27);
    }

    function test_Game28() public {
        _game(28);
    }

    function test_Game29() public {
        _game(29);
    }

    function test_Game30() public {
        _game(30);
    }

    function test_Game31() public {
        _game(31);
    }

    function test_Game32() public {
        _game(32);
    }

    function test_Game33() public {
        _game(33);
    }

    function test_Game34() public {
        _game(34);
    }

    function test_Game35() public {
        _game(35);
    }

    function test_Game36() public {
        _game(36);
    }

    function test_Game37() public {
        _game(37);
    }

    function test_Game38() public {
        _game(38);
    }

    function test_Game39() public {
        _game(39);
    }

    function test_Game40() public {
        _game(40);
    }

    function test_Game41() public {
        _game(41);
    }
}
