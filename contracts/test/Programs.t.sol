// Programs with one word changed: the book keeps those about which there can be disputes, as Rust says, and no others.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Branches, Dims, IProgramBook} from "../src/interfaces/IProgramBook.sol";
import {ProgramBook} from "../src/ProgramBook.sol";
import {Base} from "./Base.sol";

/// Another hash in the place of BLAKE3, which is slow in Solidity: a root plays no part here.
contract AnyHash {
    fallback(bytes calldata input) external returns (bytes memory) {
        return abi.encodePacked(keccak256(input));
    }
}

contract ProgramsTest is Base {
    uint256 private constant CHANGE = 8;

    ProgramBook private book;
    string private json;

    function setUp() public override {
        super.setUp();
        vm.etch(BLAKE3, address(new AnyHash()).code);
        json = vm.readFile("../vectors/programs.json");
        book = ProgramBook(_create("ProgramBook", ""));
    }

    /// Whether every rule holds: the book compares the root last.
    function _holds(Dims memory dims, Branches memory b, bytes memory records) private returns (bool) {
        try book.keep(bytes32(uint256(1)), dims, b, records) {
            return true;
        } catch (bytes memory why) {
            return bytes4(why) == IProgramBook.WrongModelRoot.selector;
        }
    }

    function _dims(uint256[] memory d) private pure returns (Dims memory) {
        return Dims(
            uint32(d[0]), uint32(d[1]), uint32(d[2]), uint32(d[3]), uint32(d[4]), uint32(d[5]), uint32(d[6])
        );
    }

    /// Writes a word of a record, little-endian; gives the one before.
    function _swap(bytes memory records, uint256 spot, uint256 value) private pure returns (uint256 before) {
        for (uint256 i = 0; i < 4; ++i) {
            before |= uint256(uint8(records[spot + i])) << (8 * i);
            records[spot + i] = bytes1(uint8(value >> (8 * i)));
        }
    }

    function _program(uint256 i) private {
        string memory key = string.concat(".programs[", vm.toString(i), "]");
        uint256[] memory dims = vm.parseJsonUintArray(json, string.concat(key, ".dims"));
        bytes memory records = vm.parseJsonBytes(json, string.concat(key, ".records"));
        bytes memory changes = vm.parseJsonBytes(json, string.concat(key, ".changes"));
        Branches memory b;
        b.tensorCount = uint32(vm.parseJsonUint(json, string.concat(key, ".tensorCount")));
        assertTrue(_holds(_dims(dims), b, records), "the program itself");
        for (uint256 spot = 0; spot < changes.length; spot += CHANGE) {
            uint256 x;
            assembly ("memory-safe") {
                x := shr(192, mload(add(add(changes, 32), spot)))
            }
            (uint256 site, uint256 word, uint256 value) = (x >> 48, (x >> 40) & 0xff, (x >> 8) & 0xffffffff);
            uint256 before;
            bool holds;
            if (site == type(uint16).max) {
                (before, dims[word]) = (dims[word], value);
                holds = _holds(_dims(dims), b, records);
                dims[word] = before;
            } else {
                uint256 place = site * 104 + word * 4;
                before = _swap(records, place, value);
                holds = _holds(_dims(dims), b, records);
                _swap(records, place, before);
            }
            // Told by the change: program, site, word and value.
            if (holds != (x & 0xff == 1)) revert Judged(i, site, word, value, holds);
        }
    }

    /// Thrown when the book judges a change otherwise than Rust.
    error Judged(uint256 program, uint256 site, uint256 word, uint256 value, bool holds);

    function test_BookAndRustKeepTheSamePrograms_first() public {
        _program(0);
    }

    function test_BookAndRustKeepTheSamePrograms_second() public {
        _program(1);
    }

    function test_BookAndRustKeepTheSamePrograms_narrow() public {
        _program(2);
    }
}
