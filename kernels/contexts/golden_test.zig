// The context model against an independent program (tests/golden/contexts.json): loss differences of every pair at every position,
// and all master weights after the last step, on every tier that the machine has, for several numbers of threads.
const std = @import("std");
const cpu = @import("../cpu.zig");
const ops = @import("ops.zig");
const Model = @import("model.zig").Model;
const Pool = @import("../pool.zig").Pool;
const Trainer = @import("eggroll.zig").Trainer;

const Golden = struct { text: []const u8, train_bytes: u32, cases: []const Case };
const Case = struct {
    order: u32,
    table_bits: u32,
    groups: u32,
    positions: u32,
    shift: u32,
    fitness_shift: u32,
    steps: u32,
    seed: u32,
    rate: u32,
    cap: u32,
    decay_shift: u32,
    decay_every: u32,
    vocabulary: u32,
    differences: []const []const i32,
    fnv1a64_of_int32_master: []const u8,
};

test "contexts: training runs of an independent program, bit for bit" {
    const allocator = std.testing.allocator;
    const parsed = try std.json.parseFromSlice(Golden, allocator, @embedFile("contexts.json"), .{ .ignore_unknown_fields = true });
    defer parsed.deinit();
    const text = parsed.value.text;
    const train_bytes = parsed.value.train_bytes;
    var seen: [256]bool = @splat(false);
    for (text[0..train_bytes]) |byte| seen[byte] = true;
    var tokens: [256]u8 = @splat(0);
    var count: u8 = 0;
    for (&tokens, seen) |*token, is_seen| if (is_seen) {
        token.* = count;
        count += 1;
    };
    const smallest: u8 = @intCast(std.mem.indexOfScalar(bool, &seen, true).?);

    for (parsed.value.cases) |golden| for (std.enums.values(cpu.Tier)) |tier| {
        if (!cpu.available(tier)) continue;
        try std.testing.expectEqual(golden.vocabulary, count);
        for ([_]u32{ 1, 2, 3, 5 }) |threads| {
            const pool = try allocator.create(Pool);
            defer allocator.destroy(pool);
            try pool.init(threads);
            defer pool.deinit();
            var model: Model = undefined;
            try model.init(.{ .vocabulary = count, .order = golden.order, .table_bits = golden.table_bits }, &tokens);
            defer model.deinit();
            const trainer = try allocator.create(Trainer);
            defer allocator.destroy(trainer);
            try trainer.init(&model, tier.contexts().?, pool, .{
                .groups = golden.groups,
                .positions = golden.positions,
                .seed = golden.seed,
                .shift = golden.shift,
                .fitness_shift = golden.fitness_shift,
                .cap = golden.cap,
                .decay_every = golden.decay_every,
                .decay_shift = golden.decay_shift,
            });
            defer trainer.deinit();
            const length = golden.order + golden.positions;
            const span = train_bytes - golden.positions - 2;
            for (0..golden.steps) |step| {
                for (0..golden.groups) |group| {
                    const start = (group * (span / golden.groups) + step * golden.positions) % span;
                    for (trainer.batch[group * length ..][0..length], 0..) |*byte, i| {
                        const at = start + i + 1;
                        byte.* = if (at < golden.order) smallest else text[at - golden.order];
                    }
                }
                trainer.start(@intCast(step), @intCast(@as(u64, golden.rate) * (golden.steps - step) / golden.steps));
                while (!pool.wait(1000)) {}
                try std.testing.expect(trainer.finish() != null);
                for (0..golden.groups * golden.positions) |i| {
                    const row = step * golden.groups * golden.positions + i;
                    try std.testing.expectEqualSlices(i32, golden.differences[row], trainer.differences[i * 16 ..][0..16]);
                }
            }
            var hash: u64 = 0xcbf29ce484222325;
            for (0..model.shape.rows()) |row| {
                for (model.masters[row * model.width ..][0..count]) |master| {
                    for (std.mem.toBytes(master)) |byte| hash = (hash ^ byte) *% 0x100000001b3;
                }
            }
            var digits: [16]u8 = undefined;
            try std.testing.expectEqualStrings(golden.fnv1a64_of_int32_master, try std.fmt.bufPrint(&digits, "{x:0>16}", .{hash}));
        }
    };
}
