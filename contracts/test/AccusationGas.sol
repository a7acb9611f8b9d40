// What an accusation costs on the chain: forge runs the precompiles as Solidity, so their gas is taken out and the chain's
// price is put in.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Precompiles} from "./Precompiles.sol";
import {VmTrace} from "./Vm.sol";

/// Measures calls that touch nothing but their input.
contract PlainMeter {
    /// Gas that `to` takes for this input, the call itself left out.
    function gasOf(address to, bytes memory input) external view returns (uint256) {
        return _warm(to, input) - _warm(address(0xdead), "");
    }

    function _warm(address to, bytes memory input) private view returns (uint256 used) {
        for (uint256 i = 0; i < 2; ++i) {
            assembly ("memory-safe") {
                let before := gas()
                pop(staticcall(gas(), to, add(input, 32), mload(input), 0, 0))
                used := sub(before, gas())
            }
        }
    }
}

/// Turns the gas of a recorded call into the chain's.
abstract contract AccusationGas is Precompiles {
    VmTrace private constant trace = VmTrace(address(vm));
    /// What a first call of an account costs beyond a later one; the chain's precompiles are never cold.
    uint256 private constant COLD = 2500;

    PlainMeter private _meter;

    uint256 private _before;

    /// The next call is measured, as a transaction of its own.
    function _startMeter() internal {
        _meter = new PlainMeter();
        _before = trace.snapshotState();
    }

    /// Gas of that call; everything is as it was before it, and it has to be made once more: what it calls is recorded only
    /// outside of a transaction of its own.
    function _measured() internal returns (uint256 used) {
        used = trace.lastCallGas().gasTotalUsed;
        require(trace.revertToState(_before));
        trace.startStateDiffRecording();
    }

    /// Gas of the call as the chain charges it, calldata and intrinsic gas included: `used`, with the precompiles at its price.
    function _chainGas(uint256 used) internal returns (uint256) {
        VmTrace.AccountAccess[] memory calls = trace.stopAndReturnStateDiff();
        uint256 seen;
        for (uint256 i = 0; i < calls.length; ++i) {
            address to = calls[i].account;
            if (calls[i].kind != VmTrace.AccountAccessKind.StaticCall || !_isOurs(to)) continue;
            uint256 bit = 1 << (uint160(to) & 0xf);
            if (seen & bit == 0) used -= COLD;
            seen |= bit;
            uint256 words = (calls[i].data.length + 31) / 32;
            uint256 price = to == TENSOR_STEP ? 100 + 12 * words : 60 + 6 * words;
            used = used + price - _meter.gasOf(to, calls[i].data);
        }
        return used;
    }

    function _isOurs(address to) private pure returns (bool) {
        return uint160(to) >> 4 == 0xb17a010;
    }
}
