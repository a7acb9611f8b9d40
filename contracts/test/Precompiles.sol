// BitAI's precompiles in plain Solidity, for tests: forge has none of them. `_installPrecompiles` puts them where the
// chain has them; an input that the chain's would refuse reverts here.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Blake3} from "../src/libraries/Blake3.sol";
import {TensorStep} from "../src/libraries/TensorStep.sol";
import {Asserts} from "./Vm.sol";

/// Thrown where the chain's precompile fails.
error BadInput();

/// Rest of `input` from `from`.
function tail(bytes calldata input, uint256 from) pure returns (bytes memory) {
    require(input.length >= from, BadInput());
    return input[from:];
}

contract Blake3Precompile {
    fallback(bytes calldata input) external returns (bytes memory) {
        return abi.encodePacked(Blake3.hash(input));
    }
}

contract Blake3KeyedPrecompile {
    fallback(bytes calldata input) external returns (bytes memory) {
        bytes memory data = tail(input, 32);
        return abi.encodePacked(Blake3.keyed(bytes32(input[:32]), data));
    }
}

contract Blake3CvPrecompile {
    fallback(bytes calldata input) external returns (bytes memory) {
        bytes memory data = tail(input, 8);
        uint64 chunk;
        for (uint256 i = 8; i > 0; --i) {
            chunk = (chunk << 8) | uint8(input[i - 1]);
        }
        return abi.encodePacked(Blake3.chainingValue(chunk, data));
    }
}

contract Blake3ParentPrecompile {
    fallback(bytes calldata input) external returns (bytes memory) {
        require(input.length == 65 && uint8(input[0]) < 2, BadInput());
        bytes32 left = bytes32(input[1:33]);
        return abi.encodePacked(Blake3.parent(left, bytes32(input[33:65]), input[0] == 0x01));
    }
}

contract TensorStepPrecompile {
    fallback(bytes calldata input) external returns (bytes memory) {
        return TensorStep.execute(input);
    }
}

/// Installs the precompiles at their addresses (docs/spec/chain.md).
abstract contract Precompiles is Asserts {
    address internal constant BLAKE3 = address(uint160(0xb17a0101));
    address internal constant BLAKE3_KEYED = address(uint160(0xb17a0102));
    address internal constant BLAKE3_CV = address(uint160(0xb17a0103));

    address internal constant BLAKE3_PARENT = address(uint160(0xb17a0106));
    address internal constant TENSOR_STEP = address(uint160(0xb17a0104));

    function _installPrecompiles() internal {
        vm.etch(BLAKE3, address(new Blake3Precompile()).code);
        vm.etch(BLAKE3_KEYED, address(new Blake3KeyedPrecompile()).code);
        vm.etch(BLAKE3_CV, address(new Blake3CvPrecompile()).code);
        vm.etch(BLAKE3_PARENT, address(new Blake3ParentPrecompile()).code);
        vm.etch(TENSOR_STEP, address(new TensorStepPrecompile()).code);
    }
}
