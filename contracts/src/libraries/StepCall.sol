// Calls TENSOR_STEP: one integer step of the tensor spec, bytes in, bytes out (docs/spec/poc.md, section 9).
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

/// The precompile.
library StepCall {
    /// Thrown when TENSOR_STEP does not answer with as many bytes as its step gives.
    error NoStepResult(uint256 got, uint256 expected);

    /// Its address.
    address internal constant TENSOR_STEP = 0x00000000000000000000000000000000B17a0104;

    /// Executes a step whose result has `size` bytes.
    function run(bytes memory input, uint256 size) internal view returns (bytes memory) {
        (bool ok, bytes memory out) = TENSOR_STEP.staticcall(input);
        require(ok && out.length == size, NoStepResult(ok ? out.length : 0, size));
        return out;
    }
}
