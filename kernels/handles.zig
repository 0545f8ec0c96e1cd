// Handles: what TypeScript holds instead of pointers. A handle is a slot and a generation, so that a stale one, a freed
// one and one of another kind are told apart instead of crashing. Objects never move.
const std = @import("std");

pub const Handle = u32;

const slot_bits = 12;
const slots_max = 1 << slot_bits;

pub fn Handles(comptime Object: type) type {
    return struct {
        slots: [slots_max]Slot = @splat(.{ .generation = 1, .object = null }),

        const Self = @This();
        const Slot = struct { generation: u20, object: ?Object };

        pub fn add(self: *Self, object: Object) error{TooManyObjects}!Handle {
            for (&self.slots, 0..) |*slot, i| {
                if (slot.object != null) continue;
                slot.object = object;
                return @as(u32, slot.generation) << slot_bits | @as(u32, @intCast(i));
            }
            return error.TooManyObjects;
        }

        pub fn get(self: *Self, handle: Handle) error{StaleHandle}!*Object {
            const slot = &self.slots[handle & (slots_max - 1)];
            if (slot.generation != handle >> slot_bits) return error.StaleHandle;
            return if (slot.object) |*object| object else error.StaleHandle;
        }

        /// Takes the object out; every copy of the handle is stale from now on.
        pub fn remove(self: *Self, handle: Handle) error{StaleHandle}!Object {
            const object = (try self.get(handle)).*;
            const slot = &self.slots[handle & (slots_max - 1)];
            slot.object = null;
            slot.generation +%= 1;
            if (slot.generation == 0) slot.generation = 1;
            return object;
        }
    };
}

test "stale handles are told" {
    const table = try std.testing.allocator.create(Handles(u32));
    defer std.testing.allocator.destroy(table);
    table.* = .{};
    const first = try table.add(7);
    try std.testing.expectEqual(7, (try table.get(first)).*);
    try std.testing.expectEqual(7, try table.remove(first));
    try std.testing.expectError(error.StaleHandle, table.get(first));
    const second = try table.add(8);
    try std.testing.expect(first != second);
    try std.testing.expectError(error.StaleHandle, table.get(first));
    try std.testing.expectError(error.StaleHandle, table.get(0));
}
