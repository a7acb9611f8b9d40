// Randomness from Bitcoin: the header hash at a height that was still unknown when the job was posted.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

/// Reads header hashes and turns them into draws.
library Beacon {
    /// System contract with the Bitcoin header hash of every BitAI height (internal byte order).
    address internal constant HEADER_HASHES = 0x00000000000000000000000000000000b17A0001;
    /// Heights between what opens a draw and the header that decides it.
    uint64 internal constant DELAY = 2;

    /// Header hash at `height`, or zero where there is none.
    function headerHash(uint256 height) internal view returns (bytes32) {
        (bool ok, bytes memory answer) = HEADER_HASHES.staticcall(abi.encode(height));
        return ok && answer.length >= 32 ? abi.decode(answer, (bytes32)) : bytes32(0);
    }

    /// Beacon of one draw of one job. A raw header hash has dozens of zero bits, hence keccak.
    function value(bytes32 header, uint256 jobId, uint256 attempt) internal pure returns (bytes32) {
        return keccak256(abi.encode(header, jobId, attempt));
    }

    /// A neuron's ticket in a draw: the lowest tickets win. It depends on no one else, so nobody changes
    /// who is drawn by reordering the list or by adding and removing others.
    function ticket(bytes32 beacon, address neuron) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode(beacon, neuron)));
    }
}
