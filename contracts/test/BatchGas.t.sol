// What each step costs a job of a batch: snapshots/BatchGasTest.json keeps the figures (intrinsic gas and calldata included).
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {BatchBase} from "./BatchBase.sol";

contract BatchGasTest is BatchBase {
    address internal n = _neuron(0);

    /// Three ids, as the single steps of Gas.t.sol have.
    function _answer(uint256) internal pure override returns (bytes memory) {
        return _out();
    }

    function _batch(uint256 jobs) private {
        uint256[] memory ids = _postMany(jobs, 1);
        _skip(2);
        string memory name = vm.toString(jobs);
        _commitAll(n, ids);
        vm.snapshotGasLastCall(string.concat("commitBatch with the draws, ", name));
        _revealAll(n, ids);
        vm.snapshotGasLastCall(string.concat("revealBatch, 3 output ids each, ", name));
        _pastDeadline(ids[0]);
        hub.finaliseBatch(_pack(ids));
        vm.snapshotGasLastCall(string.concat("finaliseBatch, ", name));
    }

    function test_GasOfBatches() public {
        _seatOne(n, 400 ether, 0, 0);
        _batch(1);
        _batch(10);
        _batch(100);
    }

    /// A draw looks at everyone on the list; here all but one ask for more.
    function test_GasOfABatchDrawnFromAFullList() public {
        uint256 max = hub.MAX_SERVERS();
        for (uint256 i = 1; i < max; ++i) {
            _seatOne(_neuron(i), 20 ether, 1000 ether, 0);
        }
        _seatOne(n, 400 ether, 0, 0);
        uint256[] memory ids = _postMany(100, 1);
        _skip(2);
        _commitAll(n, ids);
        vm.snapshotGasLastCall("commitBatch from a full list, 100");
    }
}
