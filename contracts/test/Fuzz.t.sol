// Properties over random fees, shares, windows, draws and outputs.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IWorkerHub, Params, Slot} from "../src/interfaces/IWorkerHub.sol";
import {Ids} from "../src/libraries/Ids.sol";
import {Base} from "./Base.sol";

contract FuzzTest is Base {
    function checkOutput(bytes calldata out, bytes memory stops, uint32 maxNew, uint32 vocab) external pure {
        Ids.checkOutput(out, stops, maxNew, vocab);
    }

    function checkWords(bytes calldata out, uint32 words) external pure {
        Ids.checkWords(out, words);
    }

    /// Whatever the fee, k and the protocol's rate: all of it arrives somewhere, nobody gets more than its share.
    function testFuzz_EveryWeiOfTheFeeArrives(uint256 fee, uint8 k, uint16 bps, bool burn) public {
        fee = bound(fee, 0, 15 ether);
        k = uint8(bound(k, 1, 8));
        Params memory p = _params();
        p.protocolFeeBps = uint16(bound(bps, 0, 5000));
        if (burn) p.treasury = address(0);
        hub = _deployHub(registry, p);
        _seat(8);
        uint256 start = payer.balance;
        uint256 id = _post(k, fee);
        Slot[] memory s = _assign(id);
        for (uint256 i = 0; i < k; ++i) {
            _commit(id, s[i].neuron, ROOT, _out());
        }
        for (uint256 i = 0; i < k; ++i) {
            _reveal(id, s[i].neuron, ROOT, _out());
        }
        _conserved();
        _pastDeadline(id);
        hub.finalise(id);
        _conserved();

        uint256 share = fee / k;
        uint256 cut = share * p.protocolFeeBps / 10_000;
        for (uint256 i = 0; i < k; ++i) {
            assertEq(s[i].neuron.balance, share - cut, "share");
        }
        assertEq(p.treasury.balance, cut * k, "protocol");
        assertEq(payer.balance, start - share * k, "rest");
        (, uint256 escrow,) = hub.totals();
        assertEq(escrow, 0, "escrow");
    }

    /// Each window is open up to its last height and closed after it, whatever its length.
    function testFuzz_WindowsEndWhereTheySay(uint32 commitW, uint32 revealW, uint32 challengeW) public {
        Params memory p = _params();
        p.commitWindow = uint64(bound(commitW, 1, 1e6));
        p.revealWindow = uint64(bound(revealW, 1, 1e6));
        p.challengeWindow = uint64(bound(challengeW, 1, 1e6));
        hub = _deployHub(registry, p);
        _seat(1);
        uint256 id = _post(1);
        _assign(id);

        _skip(p.commitWindow);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.WindowOpen.selector, block.number, block.number));
        hub.timeout(id);
        _commit(id, _neuron(0), ROOT, _out());
        _skip(p.revealWindow);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.WindowOpen.selector, block.number, block.number));
        hub.timeout(id);
        _reveal(id, _neuron(0), ROOT, _out());
        _skip(p.challengeWindow);
        vm.expectRevert(abi.encodeWithSelector(IWorkerHub.WindowOpen.selector, block.number, block.number));
        hub.finalise(id);
        _skip(1);
        hub.finalise(id);
    }

    /// A draw gives k distinct neurons of the list, and at least half of every slash is burned.
    function testFuzz_DrawsAreDistinctAndSlashesHalfBurned(
        uint8 n,
        uint8 k,
        uint16 slash,
        uint96 share,
        uint256 seed
    ) public {
        share = uint96(bound(share, 0, 1 ether));
        n = uint8(bound(n, 1, 20));
        k = uint8(bound(k, 1, n < 8 ? n : 8));
        Params memory p = _params();
        p.timeoutSlashBps = uint16(bound(slash, 1, 10_000));
        hub = _deployHub(registry, p);
        _seat(n);
        vm.roll(bound(seed, 1000, 1e9));
        uint256 id = _post(k, uint256(share) * k);
        uint256 before = payer.balance;
        Slot[] memory s = _assign(id);
        assertEq(s.length, k, "k drawn");
        for (uint256 i = 0; i < k; ++i) {
            assertTrue(s[i].neuron >= _neuron(0) && s[i].neuron < _neuron(n), "of the list");
            for (uint256 j = 0; j < i; ++j) {
                assertTrue(s[i].neuron != s[j].neuron, "distinct");
            }
        }
        _pastDeadline(id);
        hub.timeout(id);
        uint256 slashed = uint256(1 ether) * p.timeoutSlashBps / 10_000 * k;
        // Half, but never more than the shares of those who were silent.
        uint256 given = slashed / 2 < share * k ? slashed / 2 : share * k;
        assertEq(payer.balance - before, given, "payer");
        assertEq(address(0).balance, slashed - given, "burned");
        _conserved();
    }

    /// Output rules against a plain restatement of them.
    /// forge-config: default.fuzz.runs = 10000
    function testFuzz_OutputsAreJudgedByTheRule(uint8[] memory raw, uint8[4] memory stopsRaw, uint8 maxNew)
        public
        view
    {
        // Small numbers, so that stop ids and range errors are met often.
        uint32 vocab = 12;
        uint256 n = raw.length < 10 ? raw.length : 10;
        uint32 most = uint32(maxNew % 10) + 1;
        bytes memory out;
        bytes memory stops;
        bool[16] memory isStop;
        for (uint256 i = 0; i < 4; ++i) {
            uint8 id = stopsRaw[i] % 12;
            isStop[id] = true;
            stops = bytes.concat(stops, bytes1(id), hex"000000");
        }
        bool good = n != 0 && n <= most;
        for (uint256 i = 0; i < n; ++i) {
            uint8 id = raw[i] % 13;
            out = bytes.concat(out, bytes1(id), hex"000000");
            if (id >= vocab) good = false;
            if (i + 1 < n && isStop[id]) good = false;
            if (i + 1 == n && !isStop[id] && n != most) good = false;
        }
        bool taken;
        try this.checkOutput(out, stops, most, vocab) {
            taken = true;
        } catch {}
        assertTrue(taken == good, "judged by the rule");
    }

    /// An embedding's output is taken by its length alone, whatever its words.
    /// forge-config: default.fuzz.runs = 10000
    function testFuzz_WordsAreJudgedByTheirNumber(bytes memory out, uint8 words) public view {
        bool taken;
        try this.checkWords(out, words) {
            taken = true;
        } catch {}
        assertTrue(taken == (out.length == uint256(words) * 4), "judged by the rule");
    }

    /// What an embedding costs: the base, each id and each word, whatever they are.
    /// forge-config: default.fuzz.runs = 10000
    function testFuzz_AnEmbeddingIsPaidByItsWords(uint64 perInput, uint64 perWord) public {
        perInput = uint64(bound(perInput, 0, 1 ether));
        perWord = uint64(bound(perWord, 0, 1 ether));
        address n = _neuron(0);
        vm.deal(n, 60 ether);
        vm.prank(n);
        hub.stake{value: 60 ether}();
        vm.prank(n);
        hub.serve(ENCODER, 1 ether, perInput, perWord, type(uint96).max);
        uint256 fee = hub.quote(ENCODER, 2, WORDS, 1, 0);
        uint256 net = fee - fee * 500 / 10_000;
        assertEq(net, 1 ether + uint256(perInput) * 2 + uint256(perWord) * WORDS, "quoted");
        vm.prank(payer);
        uint256 enough = hub.infer{value: fee}(_embedding(), 1, 0);
        vm.prank(payer);
        uint256 tooLittle = hub.infer{value: fee - 2}(_embedding(), 1, 0);
        _skip(2);
        assertEq(hub.drawn(enough).length, 1, "enough");
        assertEq(hub.drawn(tooLittle).length, 0, "two wei too little");
    }

    /// Stake that is put in comes out again, whole.
    /// forge-config: default.fuzz.runs = 10000
    function testFuzz_StakeComesBackWhole(uint96 amount, uint96 part) public {
        amount = uint96(bound(amount, 1, type(uint96).max));
        part = uint96(bound(part, 1, amount));
        address n = _neuron(0);
        vm.deal(n, amount);
        vm.prank(n);
        hub.stake{value: amount}();
        vm.prank(n);
        hub.requestUnstake(part);
        if (part < amount) {
            vm.prank(n);
            hub.requestUnstake(amount - part);
        }
        _skip(10);
        vm.prank(n);
        hub.withdraw();
        assertEq(n.balance, amount, "all of it");
        _conserved();
    }
}
