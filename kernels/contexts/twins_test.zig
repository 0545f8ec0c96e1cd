// Every kernel of the context model on every tier that this machine can run, against its scalar twin, bit for bit: vocabularies around
// vectors and pairs, all orders, perturbations from too large to too small to see, extreme weights. Read next: scalar.zig, vector.zig.
const std = @import("std");
const cpu = @import("../cpu.zig");
const ops = @import("ops.zig");
const scalar = @import("scalar.zig");

const gpa = std.testing.allocator;
const table_rows = 48;

const vocabularies = [_]u32{ 1, 2, 15, 16, 17, 65, 255, 256 };
const shifts = [_]u32{ 0, 4, 8, 12, 15 };
const Style = enum { any, small, extreme, zero, sharp };

/// What one kernel table makes of a group and of the positions behind it; buffers have vectors' padding.
const Place = struct {
    noise: []align(64) i8,
    pairs: []align(64) i16,
    quads: []align(64) i8,
    offsets: []align(64) i32,
    votes: [ops.max_order][]align(64) i32,
    differences: [ops.pair_lanes]i32 = @splat(0),

    fn init(width: usize) !Place {
        var place: Place = .{
            .noise = try aligned(i8, width * ops.pair_lanes),
            .pairs = try aligned(i16, width * ops.pair_lanes),
            .quads = try aligned(i8, width * ops.pair_lanes),
            .offsets = try aligned(i32, width),
            .votes = undefined,
        };
        for (&place.votes) |*votes| votes.* = try aligned(i32, width);
        return place;
    }

    fn deinit(place: Place) void {
        inline for (.{ place.noise, place.pairs, place.quads, place.offsets }) |memory| gpa.free(memory);
        for (place.votes) |votes| gpa.free(votes);
    }
};

fn aligned(comptime T: type, count: usize) ![]align(64) T {
    const memory = try gpa.alignedAlloc(T, .@"64", count);
    @memset(memory, 0);
    return memory;
}

fn weightsOf(random: std.Random, style: Style, weights: []i8) void {
    for (weights) |*weight| weight.* = switch (style) {
        .any => random.intRangeAtMost(i8, -127, 127),
        .small => random.intRangeAtMost(i8, -3, 3),
        .extreme => if (random.boolean()) 127 else -127,
        .zero => 0,
        // One logit far above all others: what the perturbation takes it down by, nothing else makes up.
        .sharp => -127,
    };
    if (style == .sharp) {
        var at: usize = random.uintLessThan(usize, weights.len);
        while (at < weights.len) : (at += 131) weights[at] = 127;
    }
}

fn everyTier(comptime case: fn (*const ops.Table, std.Random) anyerror!void) !void {
    var tiers: u32 = 0;
    for (std.enums.values(cpu.Tier)) |tier| {
        if (tier == .scalar or !cpu.available(tier)) continue;
        tiers += 1;
        var prng: std.Random.DefaultPrng = .init(std.testing.random_seed);
        case(tier.contexts().?, prng.random()) catch |err| {
            std.debug.print("tier {t}, seed 0x{x}\n", .{ tier, std.testing.random_seed });
            return err;
        };
    }
    if (tiers == 0) return error.SkipZigTest;
}

test "contexts: groups and positions are their twins" {
    try everyTier(groupsAndPositions);
}

fn groupsAndPositions(table: *const ops.Table, random: std.Random) !void {
    for (vocabularies) |vocabulary| {
        const width = ops.padded(vocabulary);
        const weights = try gpa.alloc(i8, table_rows * width);
        defer gpa.free(weights);
        var places = [2]Place{ try .init(width), try .init(width) };
        defer for (places) |place| place.deinit();
        for (std.enums.values(Style)) |style| for (1..ops.max_order + 1) |order| for (shifts) |shift| {
            errdefer std.debug.print("vocabulary {d}, {t} weights, order {d}, shift {d}\n", .{ vocabulary, style, order, shift });
            @memset(weights, 0); // the padding of rows stays zero
            for (0..table_rows) |row| weightsOf(random, style, weights[row * width ..][0..vocabulary]);
            const key = random.int(u32);
            for (&places, [2]*const ops.Table{ &scalar.table, table }) |*place, kernels| kernels.group(&.{
                .key = key,
                .vocabulary = vocabulary,
                .noise = place.noise.ptr,
                .pairs = place.pairs.ptr,
                .quads = place.quads.ptr,
                .offsets = place.offsets.ptr,
            });
            try std.testing.expectEqualSlices(i8, places[0].noise, places[1].noise);
            try std.testing.expectEqualSlices(i8, places[0].quads, places[1].quads);
            const pairs = (vocabulary + 1) / 2 * 32;
            try std.testing.expectEqualSlices(i16, places[0].pairs[0..pairs], places[1].pairs[0..pairs]);
            for (0..3) |_| {
                var rows: [ops.max_order]u32 = undefined;
                for (&rows) |*row| row.* = random.uintLessThan(u32, table_rows); // the same one twice, too
                const target = random.uintLessThan(u32, vocabulary);
                const fitness_shift = random.uintAtMost(u32, 6);
                const row_key = random.int(u32);
                var losses: [2]i64 = undefined;
                for (places[0].votes, places[1].votes) |one, other| {
                    for (one, other, 0..) |*a, *b, v| {
                        a.* = if (v < vocabulary) random.int(i32) else 0;
                        b.* = a.*;
                    }
                }
                for (&places, [2]*const ops.Table{ &scalar.table, table }, &losses) |*place, kernels, *loss| {
                    var op: ops.Position = .{
                        .order = @intCast(order),
                        .vocabulary = vocabulary,
                        .target = target,
                        .shift = shift,
                        .fitness_shift = fitness_shift,
                        .margin = ops.marginOf(@intCast(order), shift),
                        .key = row_key,
                        .rows = rows,
                        .weights = weights.ptr,
                        .votes = undefined,
                        .pairs = place.pairs.ptr,
                        .quads = place.quads.ptr,
                        .offsets = place.offsets.ptr,
                        .differences = &place.differences,
                        .loss = 0,
                    };
                    for (&op.votes, place.votes) |*to, votes| to.* = votes.ptr;
                    kernels.position(&op);
                    loss.* = op.loss;
                }
                try std.testing.expectEqual(losses[0], losses[1]);
                try std.testing.expectEqualSlices(i32, &places[0].differences, &places[1].differences);
                for (places[0].votes, places[1].votes) |one, other| try std.testing.expectEqualSlices(i32, one, other);
                if (vocabulary == 1 and shift >= 8) for (places[0].differences) |difference| try std.testing.expect(@abs(difference) <= 16); // nothing to win
            }
        };
    }
}

test "contexts: moves are their twins" {
    try everyTier(moves);
}

fn moves(table: *const ops.Table, random: std.Random) !void {
    for ([_]u32{ 16, 32, 80, 256 }) |width| {
        const votes = try aligned(i32, width);
        defer gpa.free(votes);
        const masters = [2][]align(64) i32{ try aligned(i32, width), try aligned(i32, width) };
        defer for (masters) |memory| gpa.free(memory);
        const weights = [2][]align(64) i8{ try aligned(i8, width), try aligned(i8, width) };
        defer for (weights) |memory| gpa.free(memory);
        for ([_]u32{ 0, 1, 1 << 16, 15_116_398, std.math.maxInt(i32) }) |rate| for (0..64) |_| {
            for (votes, masters[0], weights[0]) |*vote, *master, *weight| {
                vote.* = switch (random.uintLessThan(u32, 4)) {
                    0 => 0,
                    1 => random.intRangeAtMost(i32, -1000, 1000),
                    2 => random.int(i32),
                    else => if (random.boolean()) std.math.maxInt(i32) else std.math.minInt(i32),
                };
                master.* = switch (random.uintLessThan(u32, 3)) {
                    0 => if (random.boolean()) ops.weight_limit else -ops.weight_limit,
                    1 => random.intRangeAtMost(i32, -ops.weight_limit, ops.weight_limit),
                    else => (random.intRangeAtMost(i32, -126, 126) << ops.unit_bits) + (1 << (ops.unit_bits - 1)) - random.intRangeAtMost(i32, 0, 1), // at the edge of rounding
                };
                weight.* = @intCast((master.* + (1 << (ops.unit_bits - 1))) >> ops.unit_bits);
            }
            @memcpy(masters[1], masters[0]);
            @memcpy(weights[1], weights[0]);
            var changed: [2]u32 = undefined;
            for (masters, weights, [2]*const ops.Table{ &scalar.table, table }, &changed) |master, weight, kernels, *count| {
                var op: ops.Move = .{ .votes = votes.ptr, .master = master.ptr, .weights = weight.ptr, .padded = width, .rate = rate, .changed = 0 };
                kernels.move(&op);
                count.* = op.changed;
            }
            try std.testing.expectEqual(changed[0], changed[1]);
            try std.testing.expectEqualSlices(i32, masters[0], masters[1]);
            try std.testing.expectEqualSlices(i8, weights[0], weights[1]);
            if (rate == 0) try std.testing.expectEqual(0, changed[0]);
        };
    }
}

test "contexts: the logarithm is that of its definition to 5/256 of a bit" {
    for (1..16 * 32767) |z| {
        const exact = 256 * @log2(@as(f64, @floatFromInt(z)));
        const found: f64 = @floatFromInt(scalar.logarithm(@intCast(z)));
        try std.testing.expect(@abs(found - exact) < 5);
    }
}
