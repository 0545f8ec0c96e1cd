// The kernels that only rule nano-egg has, on every tier that this machine can run, against their scalar twins, bit for bit.
// Kernels of all rules: twins_test.zig, whose buffers these use. Against an independent program: nano_test.zig.
const std = @import("std");
const layout = @import("layout.zig");
const ops = @import("ops.zig");
const scalar = @import("scalar.zig");
const twins = @import("twins_test.zig");

const gpa = std.testing.allocator;
const pair_lanes = layout.pair_lanes;
const group_lanes = layout.group_lanes;

fn randomI16(random: std.Random, n: usize) ![]i16 {
    const values = try gpa.alloc(i16, n);
    for (values) |*value| value.* = random.intRangeAtMost(i16, -86 * 86, 86 * 86);
    return values;
}

test "normal noise" {
    try twins.everyTier(struct {
        fn case(table: *const ops.Table, random: std.Random) !void {
            var starts: [pair_lanes]u32 = undefined;
            for (twins.widths) |cols| for (twins.widths) |rows| {
                for (&starts) |*start| start.* = random.uintLessThan(u32, 1 << 30);
                const key = [2]u32{ 0, random.int(u32) };
                var a: [2][]i8 = undefined;
                var b: [2][]i8 = undefined;
                var products: [2][]i16 = undefined;
                var sums: [2][pair_lanes]i32 = undefined;
                for (0..2) |side| {
                    a[side] = try gpa.alloc(i8, rows * pair_lanes);
                    b[side] = try gpa.alloc(i8, cols * pair_lanes);
                    products[side] = try gpa.alloc(i16, rows * pair_lanes);
                }
                defer for (0..2) |side| {
                    gpa.free(a[side]);
                    gpa.free(b[side]);
                    gpa.free(products[side]);
                };
                for ([_]*const ops.Table{ &scalar.table, table }, 0..) |kernels, side| {
                    kernels.normal_fill(&.{ .key = key, .starts = &starts, .rows = rows, .cols = cols, .a = a[side].ptr, .b = b[side].ptr, .b_sums = &sums[side] });
                    kernels.normal_products(&.{ .key = key, .starts = &starts, .rows = rows, .out = products[side].ptr });
                }
                try std.testing.expectEqualSlices(i8, a[0], a[1]);
                try std.testing.expectEqualSlices(i8, b[0], b[1]);
                try std.testing.expectEqualSlices(i32, &sums[0], &sums[1]);
                try std.testing.expectEqualSlices(i16, products[0], products[1]);
            };
        }
    }.case);
}

test "noise on vectors and on the embedding" {
    try twins.everyTier(struct {
        fn case(table: *const ops.Table, random: std.Random) !void {
            for (twins.widths) |width| for ([_]u32{ 1, 2, 3, 4 }) |groups| for ([_]u32{ 4, 8, 12 }) |shift| {
                const bytes = layout.activationBytes(width, groups);
                const vector = try twins.randomI8(random, width, -127, 127);
                defer gpa.free(vector);
                const noise = try randomI16(random, groups * width * pair_lanes);
                defer gpa.free(noise);
                for ([_]u32{ 0, 1 }) |perturbed| {
                    var out: [2][]i8 = undefined;
                    for (&out) |*buffer| buffer.* = try gpa.alloc(i8, bytes);
                    defer for (out) |buffer| gpa.free(buffer);
                    for ([_]*const ops.Table{ &scalar.table, table }, out) |kernels, buffer| kernels.perturb_vector(&.{
                        .vector = vector.ptr,
                        .noise = noise.ptr,
                        .noise_stride = width * pair_lanes * 2,
                        .perturbed = perturbed,
                        .perturb_shift = shift,
                        .out = buffer.ptr,
                        .width = width,
                        .groups = groups,
                    });
                    try std.testing.expectEqualSlices(i8, out[0], out[1]);
                }

                const x: twins.Both = try .init(bytes, @intCast(table.bias));
                defer x.deinit();
                x.fill(random, .any);
                const stride = (256 + width) * pair_lanes;
                const factors = try twins.randomI8(random, groups * stride, -86, 86);
                defer gpa.free(factors);
                var tokens: [layout.max_groups * group_lanes]u8 = undefined;
                random.bytes(&tokens);
                var op: ops.PerturbEmbedded = .{
                    .tokens = &tokens,
                    .a = factors.ptr,
                    .b = factors.ptr + 256 * pair_lanes,
                    .stride = stride,
                    .perturb_shift = shift,
                    .x = x.plain.ptr,
                    .width = width,
                    .groups = groups,
                };
                scalar.table.perturb_embedded(&op);
                op.x = x.tier.ptr;
                table.perturb_embedded(&op);
                try x.expectSame();
            };
        }
    }.case);
}

test "update of a vector" {
    try twins.everyTier(struct {
        fn case(table: *const ops.Table, random: std.Random) !void {
            for (twins.widths) |rows| for ([_]u32{ 1, 2, 33, 70 }) |groups| {
                const noise = try randomI16(random, groups * rows * pair_lanes);
                defer gpa.free(noise);
                const fitness = try twins.randomI8(random, groups * pair_lanes, -1, 1);
                defer gpa.free(fitness);
                const before = try twins.randomI8(random, rows, -127, 127);
                defer gpa.free(before);
                before[0] = 127;
                before[1] = -127;
                const votes = try gpa.alloc(i32, rows);
                defer gpa.free(votes);
                const bound: i32 = @intCast(4000 * groups);
                for ([_]ops.Bounds{
                    .{ .above = bound, .below = -bound, .zero_falls = 0 },
                    .{ .above = 3, .below = -3, .zero_falls = 0 },
                    .{ .above = 0, .below = 0, .zero_falls = 1 },
                }, [_]u32{ 0, 1, 1 }) |bounds, signs| {
                    var weights: [2][]i8 = undefined;
                    for (&weights) |*buffer| buffer.* = try gpa.dupe(i8, before);
                    defer for (weights) |buffer| gpa.free(buffer);
                    var changed: [2]u32 = @splat(0);
                    for ([_]*const ops.Table{ &scalar.table, table }, weights, &changed) |kernels, buffer, *sum| {
                        var first: u32 = 0;
                        while (first < groups) : (first += ops.update_groups) {
                            var op: ops.UpdateVector = .{
                                .weights = buffer.ptr,
                                .noise = noise.ptr + first * rows * pair_lanes,
                                .noise_stride = rows * pair_lanes * 2,
                                .fitness = fitness.ptr + first * pair_lanes,
                                .votes = votes.ptr,
                                .rows = rows,
                                .groups = @min(ops.update_groups, groups - first),
                                .signs = signs,
                                .bounds = bounds,
                                .first = @intFromBool(first == 0),
                                .last = @intFromBool(first + ops.update_groups >= groups),
                                .changed = 77,
                            };
                            kernels.update_vector(&op);
                            sum.* += op.changed;
                        }
                    }
                    try std.testing.expectEqualSlices(i8, weights[0], weights[1]);
                    try std.testing.expectEqual(changed[0], changed[1]);
                }
            };
        }
    }.case);
}
