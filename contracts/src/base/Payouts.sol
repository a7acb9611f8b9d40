// Payout addresses: the key that works on a machine cannot move money anywhere else.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {IPayouts, Payee} from "../interfaces/IPayouts.sol";
import {Coins} from "./Coins.sol";

/// Who is paid for whom, and the changes that a payout address makes or signs.
abstract contract Payouts is Coins {
    bytes32 private constant DOMAIN =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant CHANGE =
        keccak256("ChangePayout(address account,address payout,uint256 nonce,uint256 deadline)");
    /// Half of secp256k1's order: of a signature's two forms only the one with the lower s counts (EIP-2).
    uint256 private constant HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;

    mapping(address account => Payee) private _payees;

    /// @inheritdoc IPayouts
    function setPayout(address payout) external guarded {
        Payee storage p = _payees[msg.sender];
        require(p.payout == address(0), HasPayout(msg.sender, p.payout));
        _setPayout(msg.sender, payout);
    }

    /// @inheritdoc IPayouts
    function changePayout(address account, address payout) external guarded {
        _requirePayout(account);
        _setPayout(account, payout);
    }

    /// @inheritdoc IPayouts
    function changePayoutSigned(address account, address payout, uint256 deadline, bytes calldata signature)
        external
        guarded
    {
        require(block.number <= deadline, SignatureLate(block.number, deadline));
        Payee storage p = _payees[account];
        address signer = _signer(payoutDigest(account, payout, p.nonce, deadline), signature);
        // Nobody's signature must not count for an account that has no payout address.
        require(signer != address(0) && signer == p.payout, WrongSigner(signer, p.payout));
        _setPayout(account, payout);
    }

    /// @inheritdoc IPayouts
    function recall(address account) external guarded {
        _requirePayout(account);
        _payees[account].recalled = true;
        emit Recalled(account, _callBack(account));
    }

    /// @inheritdoc IPayouts
    function withdrawFor(address account) external guarded {
        _requirePayout(account);
        _withdraw(account);
    }

    /// @inheritdoc IPayouts
    function payee(address account) external view returns (Payee memory) {
        return _payees[account];
    }

    /// @inheritdoc IPayouts
    function payoutDigest(address account, address payout, uint256 nonce, uint256 deadline)
        public
        view
        returns (bytes32)
    {
        bytes32 domain = keccak256(
            abi.encode(DOMAIN, keccak256("BitAI payout"), keccak256("1"), block.chainid, address(this))
        );
        bytes32 change = keccak256(abi.encode(CHANGE, account, payout, nonce, deadline));
        return keccak256(abi.encodePacked(hex"1901", domain, change));
    }

    /// Where the money of an account goes.
    function _payout(address account) internal view returns (address) {
        address payout = _payees[account].payout;
        return payout == address(0) ? account : payout;
    }

    /// Refuses an account whose stake was called back.
    function _requireActive(address account) internal view {
        require(!_payees[account].recalled, CalledBack(account));
    }

    /// Starts the way out of all stake that nothing holds.
    function _callBack(address account) internal virtual returns (uint256 amount);

    /// Sends what may leave, to the payout address.
    function _withdraw(address account) internal virtual;

    function _requirePayout(address account) private view {
        address payout = _payees[account].payout;
        require(msg.sender == payout, NotPayout(msg.sender, payout));
    }

    /// Writes a payout address, never one that nobody or the account itself could change it from.
    function _setPayout(address account, address payout) private {
        bool good = payout != address(0) && payout != account && payout != address(this);
        require(good, BadPayout(payout));
        Payee storage p = _payees[account];
        p.payout = payout;
        p.nonce += 1;
        emit PayoutSet(account, payout, p.nonce);
    }

    /// Who signed; zero where nobody did.
    function _signer(bytes32 digest, bytes calldata signature) private pure returns (address) {
        if (signature.length != 65) return address(0);
        bytes32 s = bytes32(signature[32:64]);
        if (uint256(s) > HALF_ORDER) return address(0);
        return ecrecover(digest, uint8(signature[64]), bytes32(signature[:32]), s);
    }
}
