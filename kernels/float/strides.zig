// Whether strides put two indices of an output on the same element: such outputs are refused, as their tiles would write over
// one another. No operation of its own. Read next: attention.zig, rope.zig.
const std = @import("std");
const ops = @import("ops.zig");

/// Refuses an output of which two indices meet: each dimension must step over all of those within it.
pub fn apart(link: *ops.Link, comptime rank: usize, sizes: [rank]u32, strides: [rank]u32, name: []const u8) ops.Error!void {
    for (sizes) |size| if (size == 0) return;
    var order: [rank]usize = undefined;
    for (&order, 0..) |*to, i| to.* = i;
    std.sort.insertion(usize, &order, strides, struct {
        fn inner(of: [rank]u32, a: usize, b: usize) bool {
            return of[a] < of[b];
        }
    }.inner);
    var extent: u64 = 1;
    for (order) |i| {
        if (sizes[i] == 1) continue;
        if (strides[i] < extent) return link.fail(error.BadArgument, "{s}: indices meet", .{name});
        extent += (sizes[i] - 1) * @as(u64, strides[i]);
    }
}
