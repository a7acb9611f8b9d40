// Steps of the ops that go element by element (rules D1, E1, G1 to G5, P2) and the layout of a cached row.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

import {Numbers} from "../Numbers.sol";
import {Input, Scale, StepField, StepInput} from "./StepInput.sol";
import {StepTables} from "./StepTables.sol";

// forge-lint: disable-start(unsafe-typecast, divide-before-multiply, incorrect-shift)
// Every cast here is of a number that the rules bound far inside both types; shifts of constants are powers of two.
library StepElement {
    using StepInput for Input;

    /// E1, E2.
    function embed(Input memory r) internal pure returns (bytes memory) {
        uint256 fOut = r.u8();
        int256 w = r.i8();
        int256 mult = int256(r.u8());
        Scale memory s = r.scale();
        return _put32(Numbers.rsr(w * mult * int256(s.m), -(s.e + int256(fOut))));
    }

    /// D1.
    function add(Input memory r) internal pure returns (bytes memory) {
        int256 a = r.i32();
        return _put32(a + r.i32());
    }

    /// G1 to G4.
    function glu(Input memory r) internal pure returns (bytes memory) {
        uint256 act_ = _act(r);
        uint256 f = r.u8();
        int256 gate = r.i32();
        int256 bent = Numbers.rsr(gate * _share(act_, _argument(gate, f)), 16);
        return _put32(Numbers.rsr(bent * r.i32(), int256(f)));
    }

    /// G5.
    function act(Input memory r) internal pure returns (bytes memory) {
        uint256 act_ = _act(r);
        uint256 f = r.u8();
        int256 x = r.i32();
        return _put32(Numbers.rsr(x * _share(act_, _argument(x, f)), 16));
    }

    /// P2.
    function rope(Input memory r) internal pure returns (bytes memory) {
        int256 a = r.i32();
        int256 b = r.i32();
        int256 c = r.i16();
        int256 s = r.i16();
        return bytes.concat(_put32(Numbers.rsr(a * c - b * s, 15)), _put32(Numbers.rsr(b * c + a * s, 15)));
    }

    /// A head's bytes of a cached row: where they start, its record, the gap behind it.
    function kvRecord(Input memory r) internal pure returns (bytes memory) {
        uint256 d = r.headDim();
        uint256 heads = r.u16();
        uint256 head = r.u16();
        require(head < heads, StepField(r.kind, "head"));
        uint256 length = 2 * (d + 4);
        uint256 record = r.take(length);
        uint256 start = recordOffset(head, d);
        bytes memory out = new bytes(head + 1 < heads ? recordOffset(head + 1, d) - start : length);
        assembly ("memory-safe") {
            mcopy(add(out, 0x20), record, length)
        }
        return bytes.concat(StepInput.put(start, 4), out);
    }

    /// Where head `head`'s record starts: no record crosses a chunk of 1024 bytes where it fits in one.
    function recordOffset(uint256 head, uint256 d) internal pure returns (uint256) {
        uint256 length = 2 * (d + 4);
        if (length > 1024) return head * length;
        uint256 inChunk = 1024 / length;
        return (head / inChunk) * 1024 + (head % inChunk) * length;
    }

    function _act(Input memory r) private pure returns (uint256 x) {
        x = r.u8();
        require(x < 3, StepField(r.kind, "act"));
    }

    function _put32(int256 x) private pure returns (bytes memory) {
        return StepInput.put(Numbers.sat32(x), 4);
    }

    /// G1.
    function _argument(int256 x, uint256 f) private pure returns (int256) {
        return Numbers.rsr(x, int256(f) - 16);
    }

    /// G3.
    function _share(uint256 act_, int256 x) private pure returns (int256) {
        if (act_ == 0) return _lookup(x, StepTables.SIGMOID, 11);
        if (act_ == 2) return _lookup(x, StepTables.PHI, 10);
        x = Numbers.clamp(x, -655360, 655360);
        int256 square = (x * x) >> 16;
        int256 cubic = 65536 + ((square * 2930) >> 16);
        int256 z = (x * cubic) >> 16;
        return _lookup((z * 104580) >> 16, StepTables.SIGMOID, 11);
    }

    /// G2, with t = b + 7.
    function _lookup(int256 x, bytes memory table, uint256 t) private pure returns (int256 y) {
        uint256 a = Numbers.magnitude(x);
        uint256 i = a >> t;
        if (i >= 512) {
            y = 65536;
        } else {
            int256 low = StepTables.at_(table, i);
            int256 rest = int256(a & ((1 << t) - 1));
            y = low + Numbers.rsr((StepTables.at_(table, i + 1) - low) * rest, int256(t));
        }
        return x < 0 ? 65536 - y : y;
    }
}
// forge-lint: disable-end(unsafe-typecast, divide-before-multiply, incorrect-shift)
