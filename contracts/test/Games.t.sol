// Whole games that the Rust engine recorded end the same way here, move by move.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Blake3} from "../src/libraries/Blake3.sol";
import {PocVerifier} from "../src/PocVerifier.sol";
import {Recorded} from "./GameBase.sol";
import {GamePlay} from "./GamePlay.sol";

contract GamesTest is GamePlay {
    /// Games in the vectors.
    uint256 private constant GAMES = 74;

    function test_EveryRecordedGameIsHere() public view {
        assertTrue(vm.keyExistsJson(json, string.concat(".games[", vm.toString(GAMES - 1), "]")), "last");
        assertTrue(!vm.keyExistsJson(json, string.concat(".games[", vm.toString(GAMES), "]")), "one more");
    }

    function test_IdsAreThoseOfRust() public {
        _sameIds(0);
    }

    function test_IdsAreThoseOfRust_further() public {
        _sameIds(5);
    }

    function test_IdsAreThoseOfRust_more() public {
        _sameIds(10);
    }

    /// Every 15th game's ids; all of them in one call are more than its gas.
    function _sameIds(uint256 first) private {
        vm.chainId(vm.parseJsonUint(json, ".chainId"));
        address there = vm.parseJsonAddress(json, ".hub");
        PocVerifier other = PocVerifier(_create("PocVerifier", abi.encode(there, book, 1, address(0), 0, 0)));
        for (uint256 i = first; i < GAMES; i += 15) {
            Recorded memory g = _recorded(i);
            bytes32 id = other.claimId(
                vm.parseJsonUint(json, ".jobId"),
                vm.parseJsonAddress(json, ".neuron"),
                hub.hashJob(g.spec),
                g.root,
                keccak256(g.outputs)
            );
            assertEq(id, g.claim, "claim");
            for (uint256 j = 0; j < g.moves.length && j < 4; ++j) {
                if (_is(g, j, "accuse")) break;
                bytes16 tag = _is(g, j, "ask") ? bytes16("bitai/ask/v0") : bytes16("bitai/answer/v0");
                assertEq(Blake3.hash(bytes.concat(tag, g.moves[j])), g.ids[j], "move");
            }
        }
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

    function test_Game42() public {
        _game(42);
    }

    function test_Game43() public {
        _game(43);
    }

    function test_Game44() public {
        _game(44);
    }

    function test_Game45() public {
        _game(45);
    }

    function test_Game46() public {
        _game(46);
    }

    function test_Game47() public {
        _game(47);
    }

    function test_Game48() public {
        _game(48);
    }

    function test_Game49() public {
        _game(49);
    }

    function test_Game50() public {
        _game(50);
    }

    function test_Game51() public {
        _game(51);
    }

    function test_Game52() public {
        _game(52);
    }

    function test_Game53() public {
        _game(53);
    }

    function test_Game54() public {
        _game(54);
    }

    function test_Game55() public {
        _game(55);
    }

    function test_Game56() public {
        _game(56);
    }

    function test_Game57() public {
        _game(57);
    }

    function test_Game58() public {
        _game(58);
    }

    function test_Game59() public {
        _game(59);
    }

    function test_Game60() public {
        _game(60);
    }

    function test_Game61() public {
        _game(61);
    }

    function test_Game62() public {
        _game(62);
    }

    function test_Game63() public {
        _game(63);
    }

    function test_Game64() public {
        _game(64);
    }

    function test_Game65() public {
        _game(65);
    }

    function test_Game66() public {
        _game(66);
    }

    function test_Game67() public {
        _game(67);
    }

    function test_Game68() public {
        _game(68);
    }

    function test_Game69() public {
        _game(69);
    }

    function test_Game70() public {
        _game(70);
    }

    function test_Game71() public {
        _game(71);
    }

    function test_Game72() public {
        _game(72);
    }

    function test_Game73() public {
        _game(73);
    }
}
