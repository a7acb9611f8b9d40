// Money of accounts whose keys stand on machines: it leaves for one address that those keys cannot move.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

/// Where an account's money goes. docs/adr/0069-payout-addresses.md.
struct Payee {
    /// The only address that money of the account is sent to; zero: the account itself, until it names one.
    address payout;
    /// Changes so far, the first setting included: a signed change names the number it follows.
    uint64 nonce;
    /// Whether the payout address has called the stake back: the account takes part no more.
    bool recalled;
}

/// Payout addresses. An account sets its own once; from then on that address alone changes it.
interface IPayouts {
    /// An account's money goes to another address from here on.
    event PayoutSet(address indexed account, address indexed payout, uint64 nonce);
    /// A payout address called back all of an account's stake that nothing holds.
    event Recalled(address indexed account, uint256 amount);
    /// Coins were burned.
    event Burned(uint256 amount);

    /// Thrown when a function is entered again from a transfer that it makes.
    error Reentered();
    /// Thrown when an amount does not fit 96 bits.
    error AmountTooLarge(uint256 amount);
    /// Thrown when the receiver refuses coins that it asked for.
    error TransferRefused(address to, uint256 amount);
    /// Thrown when a payout address is to be zero, the account itself, or the contract that pays.
    error BadPayout(address payout);
    /// Thrown when an account that has a payout address sets one: only that address changes it.
    error HasPayout(address account, address payout);
    /// Thrown when someone other than the account's payout address speaks for it, or it has none.
    error NotPayout(address caller, address payout);
    /// Thrown when a signed change comes after the last height that it names.
    error SignatureLate(uint256 height, uint256 deadline);
    /// Thrown when a change is not signed by the account's payout address; `got` is zero where nobody signed.
    error WrongSigner(address got, address payout);
    /// Thrown when an account takes part, or moves its stake, after its payout address called it back.
    error CalledBack(address account);

    /// Names the address that the caller's money is sent to from here on; once, while there is none.
    function setPayout(address payout) external;
    /// Changes an account's payout address. Only the present one; the same again makes signed changes void.
    function changePayout(address account, address payout) external;
    /// The same, signed by the present one. Anyone may bring it.
    /// @param account whose money it is
    /// @param payout where it goes from here on
    /// @param deadline the last height at which it counts
    /// @param signature r, s, v (65 bytes) over `payoutDigest` with the present nonce
    function changePayoutSigned(address account, address payout, uint256 deadline, bytes calldata signature)
        external;
    /// Calls back all stake of an account that nothing holds, as if asked back now, and ends its part here: it stakes, asks back
    /// and serves no more. Only its payout address; again for what was held before.
    function recall(address account) external;
    /// Sends what `withdraw` would send the account, to its payout address, which alone may call.
    function withdrawFor(address account) external;

    /// Where an account's money goes.
    function payee(address account) external view returns (Payee memory);
    /// What a payout address signs to change itself (EIP-712): ChangePayout(address account,address payout,uint256 nonce,uint256
    /// deadline) in the domain "BitAI payout", version "1", of this chain and contract.
    function payoutDigest(address account, address payout, uint256 nonce, uint256 deadline)
        external
        view
        returns (bytes32);
}
