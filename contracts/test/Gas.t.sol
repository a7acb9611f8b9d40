// What each step costs: snapshots/GasTest.json keeps the figures (intrinsic gas and calldata included), CI compares.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IProgramBook, Model as Program} from "../src/interfaces/IProgramBook.sol";
import {IWorkerHub, JobSpec} from "../src/interfaces/IWorkerHub.sol";
import {AccusationGas} from "./AccusationGas.sol";
import {Base} from "./Base.sol";

contract GasTest is Base, AccusationGas {
    function test_GasOfAJob() public {
        address n = _neuron(0);
        vm.deal(n, 20 ether);
        vm.prank(n);
        hub.stake{value: 20 ether}();
        vm.snapshotGasLastCall("stake");
        vm.prank(n);
        hub.serve(MODEL, 1, 0, 1, 5 ether);
        vm.snapshotGasLastCall("serve");

        uint256 id = _posted("infer, 3 input ids", _spec());
        _skip(2);
        bytes32 c = hub.hashCommit(id, n, SALT, ROOT, keccak256(_out()));
        bytes32 jobHash = hub.job(id).jobHash;
        vm.prank(n);
        hub.commit(id, jobHash, c);
        vm.snapshotGasLastCall("commit with the draw, 1 neuron on the list");
        _reveal(id, n, ROOT, _out());
        vm.snapshotGasLastCall("reveal, 3 output ids");
        _pastDeadline(id);
        hub.finalise(id);
        vm.snapshotGasLastCall("finalise, k = 1");
    }

    function test_GasOfLongLists() public {
        bytes32 long = registry.register{value: 1 ether}("long", 0, 49152, 8192, 0, "u", 0);
        Program memory m;
        (m.sites, m.vocab, m.context) = (address(1), 49152, 8192);
        _mockProgram(IProgramBook(address(0xB00C)), "long", m);
        address n = _neuron(0);
        _seat(1);
        vm.prank(n);
        hub.serve(long, 0, 0, 0, 5 ether);
        JobSpec memory spec = _spec();
        spec.modelRoot = "long";
        spec.vocab = 49152;
        spec.context = 8192;
        spec.inputIds = _ids(2048);
        spec.maxNew = 1024;
        uint256 id = _posted("infer, 2048 input ids", spec);
        _assign(id);
        bytes memory out = _ids(1024);
        _commit(id, n, ROOT, out);
        _reveal(id, n, ROOT, out);
        vm.snapshotGasLastCall("reveal, 1024 output ids");
    }

    function test_GasOfAnEmbedding() public {
        bytes32 wide = registry.register{value: 1 ether}("wide", 0, 30522, 256, 384, "u", 0);
        address n = _neuron(0);
        _seat(1);
        vm.prank(n);
        hub.serve(wide, 0, 0, 0, 5 ether);
        JobSpec memory spec = _embedding();
        spec.modelRoot = "wide";
        spec.vocab = 30522;
        spec.context = 256;
        spec.words = 384;
        uint256 id = _posted("infer, an embedding of 2 ids", spec);
        _assign(id);
        bytes memory out = _ids(384);
        _commit(id, n, ROOT, out);
        _reveal(id, n, ROOT, out);
        vm.snapshotGasLastCall("reveal, 384 words");
    }

    function test_GasOfADrawFromAFullList() public {
        uint256 max = hub.MAX_SERVERS();
        _seat(max);
        vm.prank(payer);
        hub.infer{value: 8 ether}(_spec(), 8, 0);
        _skip(2);
        hub.assign(1);
        uint256 used = vm.snapshotGasLastCall("assign, k = 8 from a full list");
        assertTrue(used < 2_000_000, "bounded");
    }

    /// Posts a job; the snapshot keeps it with precompiles at the chain's price.
    function _posted(string memory what, JobSpec memory spec) private returns (uint256 id) {
        _startMeter();
        vm.prank(payer);
        hub.infer{value: FEE}(spec, 1, 0);
        uint256 used = _measured();
        vm.prank(payer);
        id = hub.infer{value: FEE}(spec, 1, 0);
        vm.snapshotValue("GasTest", what, _chainGas(used));
    }

    /// Ids 300, 301, ... none of them a stop id.
    function _ids(uint256 n) private pure returns (bytes memory out) {
        out = new bytes(n * 4);
        for (uint256 i = 0; i < n; ++i) {
            uint256 id = 300 + i;
            out[i * 4] = bytes1(uint8(id));
            out[i * 4 + 1] = bytes1(uint8(id >> 8));
        }
    }
}
