// Bytes kept as the code of an account: 200 gas a byte once, one cold access to read any part.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

/// Written once, read in parts. The code starts with STOP, so that nobody can run it.
library Blob {
    /// Thrown when the account that is to hold bytes cannot be made.
    error BlobRefused(uint256 length);

    /// Keeps `data`.
    function put(bytes memory data) internal returns (address where) {
        uint256 n = data.length;
        // PUSH3 size, DUP1, PUSH1 11, PUSH0, CODECOPY, PUSH0, RETURN; then STOP and the bytes.
        // No move comes near 16 MiB.
        // forge-lint: disable-next-line(unsafe-typecast)
        bytes memory init = abi.encodePacked(hex"62", uint24(n + 1), hex"80600b5f395ff3", hex"00", data);
        assembly ("memory-safe") {
            where := create(0, add(init, 32), mload(init))
        }
        require(where != address(0), BlobRefused(n));
    }

    /// Bytes kept there.
    function size(address where) internal view returns (uint256) {
        return where.code.length - 1;
    }

    /// `len` bytes from `at`; zeros behind the end.
    function read(address where, uint256 spot, uint256 len) internal view returns (bytes memory out) {
        out = new bytes(len);
        assembly ("memory-safe") {
            extcodecopy(where, add(out, 32), add(spot, 1), len)
        }
    }

    /// 32 bytes from `at`; zeros behind the end.
    function word(address where, uint256 spot) internal view returns (bytes32 out) {
        assembly ("memory-safe") {
            extcodecopy(where, 0, add(spot, 1), 32)
            out := mload(0)
        }
    }
}
