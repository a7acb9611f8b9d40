// Coins: how contracts that hold them send and burn them.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IPayouts} from "../interfaces/IPayouts.sol";

/// Guarded transfers and 96-bit amounts.
abstract contract Coins is IPayouts {
    /// One, in basis points.
    uint256 internal constant BPS = 10_000;

    bool private transient _entered;

    /// Refuses to be entered again while a transfer is under way.
    modifier guarded() {
        require(!_entered, Reentered());
        _entered = true;
        _;
        _entered = false;
    }

    /// Sends all gas along; for money that the receiver asked for itself.
    function _sendOrRevert(address to, uint256 amount) internal {
        (bool ok,) = to.call{value: amount}("");
        require(ok, TransferRefused(to, amount));
    }

    /// Sends to the zero address, whose key nobody has and which refuses nothing.
    function _burn(uint256 amount) internal {
        if (amount == 0) return;
        emit Burned(amount);
        _sendOrRevert(address(0), amount);
    }

    /// `amount` as 96 bits.
    function _u96(uint256 amount) internal pure returns (uint96) {
        require(amount <= type(uint96).max, AmountTooLarge(amount));
        // Checked in the line above.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint96(amount);
    }
}
