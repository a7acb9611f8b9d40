// Random challengers and a neuron that may fall silent play about a lie and about an honest answer: after every step money
// is conserved and a claim has one winner at most, and in the end every bond comes free.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Claim, ClaimState, Game, GameState} from "../src/interfaces/IPocVerifier.sol";
import {PocVerifier} from "../src/PocVerifier.sol";
import {SlotState} from "../src/interfaces/IWorkerHub.sol";
import {GameBase, Recorded} from "./GameBase.sol";

/// What the fuzzer calls. Calls that the verifier refuses are part of the game.
contract GameHandler is GameBase {
    /// A lie about a linear's sum, and a right one that is accused.
    uint256 private constant LIE = 0;
    uint256 private constant HONEST = 2;
    uint256 public constant CHALLENGERS = 3;
    uint256 public constant TABLES = 2;

    Recorded[TABLES] private _games;
    uint256[TABLES] public jobs;
    bytes32[TABLES] public claims;
    address public neuron;
    uint256[TABLES] private _next;
    /// The recorded ids as they are here, of each table.
    mapping(uint256 table => mapping(bytes32 => bytes32)) private _ids;
    /// Convictions that were seen, and what they paid to challengers at once.
    uint256[TABLES] public convictions;
    uint256 public rewards;
    uint256 public winners;

    constructor() {
        setUp();
        _keepFor(LIE);
        _games[0] = _recorded(LIE);
        _games[1] = _recorded(HONEST);
        (jobs[0], neuron) = _claimed(_games[0]);
        (jobs[1],) = _answeredJob(_games[1]);
        for (uint256 i = 0; i < CHALLENGERS; ++i) {
            vm.deal(who(i), 100 ether);
        }
    }

    /// Challenger `i`.
    function who(uint256 i) public pure returns (address) {
        return address(uint160(0xC400 + i % CHALLENGERS));
    }

    function verifierOf() external view returns (PocVerifier) {
        return poc;
    }

    /// Opens a game, the claim's first or a further one.
    function enter(uint256 t, uint256 i) external {
        t %= TABLES;
        uint256 bond = poc.bond(_games[t].spec.modelRoot);
        if (claims[t] == 0) {
            vm.prank(who(i));
            try poc.open{value: bond}(jobs[t], neuron, _fields(_games[t]), _games[t].outputs) returns (
                bytes32 id
            ) {
                claims[t] = id;
                _ids[t][_games[t].claim] = id;
            } catch {}
        } else {
            vm.prank(who(i));
            try poc.join{value: bond}(claims[t]) {} catch {}
        }
    }

    /// Makes up to `moves` of the recorded moves that come next; the last one, the accusation, anybody may make again.
    function play(uint256 t, uint256 i, uint8 moves) external {
        t %= TABLES;
        for (uint256 n = 0; n <= moves % 6; ++n) {
            if (claims[t] == 0 || !_move(t, who(i))) return;
        }
    }

    /// A whole game, so that every run sees some end.
    function whole(uint256 t, uint256 i) external {
        this.enter(t, i);
        this.play(t, i, 5);
        this.play(t, i, 5);
    }

    function _move(uint256 t, address by) private returns (bool done) {
        Recorded storage g = _games[t];
        uint256 n = _next[t];
        bytes memory move = g.moves[n];
        bytes32 to;
        assembly ("memory-safe") {
            to := mload(add(move, 32))
        }
        move = _naming(move, _ids[t][to]);
        bytes32 kind = keccak256(bytes(g.kinds[n]));
        bytes32 id;
        uint256 held = _held();
        if (kind == keccak256("ask")) {
            vm.prank(by);
            try poc.ask(claims[t], move) returns (bytes32 x) {
                (id, done) = (x, true);
            } catch {}
        } else if (kind == keccak256("answer")) {
            vm.prank(neuron);
            try poc.answer(move) returns (bytes32 x) {
                (id, done) = (x, true);
            } catch {}
        } else {
            vm.prank(by);
            try poc.accuse(claims[t], move) {} catch {}
        }
        if (done) {
            _ids[t][g.ids[n]] = id;
            _next[t] = n + 1;
        }
        _seen(t, held);
    }

    function timeout(uint256 t, uint256 i) external {
        t %= TABLES;
        uint256 held = _held();
        try poc.timeout(claims[t], who(i)) {} catch {}
        _seen(t, held);
    }

    function takeBack(uint256 t, uint256 i) external {
        vm.prank(who(i));
        try poc.takeBack(claims[t % TABLES]) {} catch {}
    }

    function withdraw(uint256 i) external {
        vm.prank(i % 4 == 3 ? neuron : who(i));
        try poc.withdraw() {} catch {}
    }

    function finalise(uint256 t) external {
        try hub.finalise(jobs[t % TABLES]) {} catch {}
    }

    function wait_(uint8 heights) external {
        _skip(heights % 64);
    }

    /// What the challengers hold.
    function _held() private view returns (uint256 sum) {
        for (uint256 i = 0; i < CHALLENGERS; ++i) {
            sum += who(i).balance;
        }
    }

    /// Counts convictions as they come, and what they pay.
    function _seen(uint256 t, uint256 held) private {
        bool convicted = claims[t] != 0 && poc.claimOf(claims[t]).state == ClaimState.Convicted;
        uint256 paid = _held() - held;
        rewards += paid;
        if (paid != 0) ++winners;
        if (convicted && convictions[t] == 0) convictions[t] = 1;
    }

    /// Ends whatever goes on by the clocks, and everybody takes what is theirs.
    function settle() external {
        _skip(2 * uint256(CLOCK) + 1);
        for (uint256 t = 0; t < TABLES; ++t) {
            for (uint256 i = 0; i < CHALLENGERS; ++i) {
                this.timeout(t, i);
            }
            for (uint256 i = 0; i < CHALLENGERS; ++i) {
                this.takeBack(t, i);
            }
            this.finalise(t);
        }
        for (uint256 i = 0; i < 4; ++i) {
            this.withdraw(i);
        }
    }

    function check() external view {
        _whole();
        for (uint256 t = 0; t < TABLES; ++t) {
            if (claims[t] != 0) _checkTable(t);
        }
        assertEq(rewards, 0.5 ether * (convictions[0] + convictions[1]), "half of each collateral, to one");
        assertEq(winners, convictions[0] + convictions[1], "one winner a conviction");
    }

    /// Hub and verifier agree; who plays is counted, and blocks the job exactly as long.
    function _checkTable(uint256 t) private view {
        Claim memory c = poc.claimOf(claims[t]);
        uint256 playing;
        for (uint256 i = 0; i < CHALLENGERS; ++i) {
            if (poc.game(claims[t], who(i)).state == GameState.Playing) ++playing;
        }
        bool convicted = c.state == ClaimState.Convicted;
        bool failed = hub.slot(jobs[t], neuron).state == SlotState.Failed;
        assertTrue(failed == convicted, "the hub convicts whom the verifier does");
        assertEq(c.live, convicted ? 0 : playing, "live games");
        assertEq(hub.job(jobs[t]).openDisputes, c.live == 0 ? 0 : 1, "blocked while one plays");
    }

    /// Every bond that was ever put up, by how its game stands: with the verifier while it plays, else not.
    function bondsOfPlayers() external view returns (uint256 sum) {
        for (uint256 t = 0; t < TABLES; ++t) {
            for (uint256 i = 0; i < CHALLENGERS; ++i) {
                Game memory g = poc.game(claims[t], who(i));
                if (g.state == GameState.Playing) sum += g.bond;
            }
        }
    }

    function owedToActors() external view returns (uint256 sum) {
        sum = poc.owedTo(neuron);
        for (uint256 i = 0; i < CHALLENGERS; ++i) {
            sum += poc.owedTo(who(i));
        }
    }
}

contract GameInvariantTest is GameBase {
    GameHandler private handler;

    function setUp() public override {
        handler = new GameHandler();
        poc = handler.verifierOf();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        bytes4[] memory s = new bytes4[](8);
        s[0] = GameHandler.enter.selector;
        s[1] = GameHandler.play.selector;
        s[2] = GameHandler.whole.selector;
        s[3] = GameHandler.timeout.selector;
        s[4] = GameHandler.takeBack.selector;
        s[5] = GameHandler.withdraw.selector;
        s[6] = GameHandler.finalise.selector;
        s[7] = GameHandler.wait_.selector;
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(handler), s);
    }

    /// What the fuzzer calls reaches verdicts, either way.
    function test_TheHandlerPlaysGamesToTheirEnd() public {
        handler.whole(0, 1);
        handler.enter(1, 0);
        handler.enter(1, 2);
        handler.play(1, 0, 5);
        handler.play(1, 0, 5);
        assertEq(handler.convictions(0), 1, "the lie");
        assertEq(handler.winners(), 1, "one winner");
        assertEq(uint256(poc.game(handler.claims(1), handler.who(0)).state), uint256(GameState.Lost), "lost");
        assertEq(
            uint256(poc.game(handler.claims(1), handler.who(2)).state), uint256(GameState.Playing), "plays"
        );
        handler.check();
        handler.settle();
        assertEq(address(poc).balance, 0, "nothing stays behind");
    }

    /// forge-config: default.invariant.runs = 64
    /// forge-config: default.invariant.depth = 48
    function invariant_MoneyIsConservedAndAClaimHasOneWinner() public view {
        handler.check();
        (uint256 bonds, uint256 owed) = poc.totals();
        assertEq(
            bonds, handler.bondsOfPlayers(), "a bond is of a game that goes on, or is not taken back yet"
        );
        assertEq(owed, handler.owedToActors(), "what is owed is owed to somebody");
    }

    /// Runs after each of the fuzzer's sequences.
    function afterInvariant() public {
        handler.settle();
        handler.check();
        (uint256 bonds, uint256 owed) = poc.totals();
        assertEq(bonds, 0, "a bond is locked for ever");
        assertEq(owed, 0, "coins are locked for ever");
        assertEq(address(poc).balance, 0, "nothing stays behind");
    }
}
