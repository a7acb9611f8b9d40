// What each step costs; `.gas-snapshot` keeps the figures and the tests compare.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IWorkerHub, JobSpec} from "../src/interfaces/IWorkerHub.sol";
import {Base} from "./Base.sol";

contract GasTest is Base {
    uint256 internal id;
    bytes32 internal jobHash;
    bytes32 internal commitment;
    bytes internal longOut;

    function setUp() public override {
        super.setUp();
        _seat(1);
    }

    /// Runs `call` on the hub as `who` and prints nothing but its gas into the snapshot.
    function _gas(address who, uint256 value, bytes memory call) private returns (uint256 used) {
        vm.prank(who);
        used = gasleft();
        (bool ok,) = address(hub).call{value: value}(call);
        used -= gasleft();
        assertTrue(ok, "the step works");
    }

    function test_GasOfAWholeJob() public {
        JobSpec memory spec = _spec();
        uint256 infer = _gas(payer, FEE, abi.encodeCall(IWorkerHub.infer, (spec, 1, 0)));
        _skip(2);
        id = 1;
        jobHash = hub.job(id).jobHash;
        commitment = hub.hashCommit(id, _neuron(0), SALT, ROOT, keccak256(_out()));
        uint256 commit = _gas(_neuron(0), 0, abi.encodeCall(IWorkerHub.commit, (id, jobHash, commitment)));
        uint256 reveal = _gas(_neuron(0), 0, abi.encodeCall(IWorkerHub.reveal, (id, SALT, ROOT, _out())));
        _pastDeadline(id);
        uint256 finalise = _gas(_neuron(0), 0, abi.encodeCall(IWorkerHub.finalise, (id)));
        assertTrue(infer < 350_000 && commit < 300_000 && reveal < 120_000 && finalise < 150_000, "bounds");
    }

    function test_GasOfADrawFromAFullList() public {
        for (uint256 i = 1; i < hub.MAX_SERVERS(); ++i) {
            _seatOne(_neuron(i), 20 ether, 0, 0);
        }
        vm.prank(payer);
        hub.infer{value: 8 ether}(_spec(), 8, 0);
        _skip(2);
        uint256 used = _gas(payer, 0, abi.encodeCall(IWorkerHub.assign, (1)));
        assertTrue(used < 2_000_000, "bounded");
    }
}
