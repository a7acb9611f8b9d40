// Numbers that count from an epoch on: what they were in any epoch that is not long past.
// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.37;

/// A value from an epoch on.
struct Point {
    /// First epoch.
    uint64 from;
    /// The value.
    uint96 value;
}

/// Lists of points, at most one an epoch, in order.
library History {
    /// The value in an epoch, 0 before the first point.
    function valueAt(Point[] storage points, uint256 epoch) internal view returns (uint96) {
        uint256 low;
        uint256 high = points.length;
        // The first point behind the epoch lies in [low, high].
        while (low < high) {
            uint256 mid = (low + high) / 2;
            if (points[mid].from > epoch) high = mid;
            else low = mid + 1;
        }
        return low == 0 ? 0 : points[low - 1].value;
    }

    /// The newest value, whether it counts yet or not.
    function newest(Point[] storage points) internal view returns (uint96) {
        uint256 n = points.length;
        return n == 0 ? 0 : points[n - 1].value;
    }

    /// Sets the value from `epoch` on, which is not before the newest point's.
    function set(Point[] storage points, uint64 epoch, uint96 value) internal {
        uint256 n = points.length;
        if (n != 0 && points[n - 1].from == epoch) points[n - 1].value = value;
        else points.push(Point(epoch, value));
    }
}
