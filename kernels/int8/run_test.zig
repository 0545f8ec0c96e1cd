// Whole training runs against tests/golden/egg-c.json: initial weights, then weights, states, losses and fitness after each
// step, on every SIMD tier of the machine (or of its emulator) with several thread counts and panel widths.
// The scalar tier and the way through the library: tests/golden.test.ts.
const std = @import("std");
const builtin = @import("builtin");
const cpu = @import("../cpu.zig");
const scalar = @import("scalar.zig");
const Model = @import("model.zig").Model;
const Pool = @import("../pool.zig").Pool;
const Trainer = @import("eggroll.zig").Trainer;

const gpa = std.testing.allocator;
const Sha256 = std.crypto.hash.sha2.Sha256;

const Golden = struct { cases: []Case };
const Case = struct {
    name: []const u8,
    config: struct { hidden: u32, layers: u32, sequence: u32, population: u32, threshold: i32, time_seed: u32 },
    corpus: struct { text: []const u8, bytes: usize },
    init: struct { sha256: []const u8 },
    steps: []struct {
        step: u32,
        step_seed: []const u8,
        fitness: []const u8,
        weights_changed: u64,
        weights_sha256: []const u8,
        states_sha256: []const u8,
        loss_plus: ?[]i32 = null,
        loss_minus: ?[]i32 = null,
    },
};

/// An emulator takes a minute for what a machine does in a second: fewer repetitions where there may be one.
const thread_counts: []const u32 = if (builtin.cpu.arch == .x86_64) &.{ 1, 2, 3, 5 } else &.{ 1, 3 };

test "golden runs" {
    const golden = try std.json.parseFromSlice(Golden, gpa, @embedFile("egg-c.json"), .{ .ignore_unknown_fields = true });
    defer golden.deinit();
    for (std.enums.values(cpu.Tier)) |tier| {
        if (tier == .scalar or !cpu.available(tier)) continue;
        for (thread_counts) |threads| {
            const pool = try gpa.create(Pool);
            defer gpa.destroy(pool);
            try pool.init(threads);
            defer pool.deinit();
            for (golden.value.cases) |case| {
                const panel_groups: u32 = threads % 4;
                replay(case, tier, pool, panel_groups) catch |err| {
                    std.debug.print("{s}: tier {t}, {d} threads, panel_groups {d}\n", .{ case.name, tier, threads, panel_groups });
                    return err;
                };
            }
        }
    }
}

fn replay(case: Case, tier: cpu.Tier, pool: *Pool, panel_groups: u32) !void {
    const kernels = tier.kernels().?;
    const config = case.config;
    const pairs = config.population / 2;
    var model: Model = undefined;
    try model.init(.{ .layers = config.layers, .hidden = config.hidden, .vocabulary = 256 }, kernels.bias);
    defer model.deinit();
    initialize(&model);
    try expectHash(case.init.sha256, &model, null);
    const trainer = try gpa.create(Trainer);
    defer gpa.destroy(trainer);
    try trainer.init(&model, kernels, pool, .{
        .pairs = pairs,
        .sequence = config.sequence,
        .threshold = config.threshold,
        .perturb_shift = 8,
        .panel_groups = panel_groups,
        .mode = if (panel_groups == 3) .rows else .auto,
    });
    defer trainer.deinit();
    for (case.steps) |step| {
        const stride = case.corpus.bytes / pairs;
        const row = config.sequence + 1;
        for (0..pairs) |p| {
            const start = (@as(usize, step.step) * config.sequence + p * stride) % (case.corpus.bytes - config.sequence);
            for (trainer.batch[p * row ..][0..row], start..) |*byte, at| byte.* = case.corpus.text[at % case.corpus.text.len];
        }
        trainer.start(try std.fmt.parseInt(u32, step.step_seed, 16));
        while (!pool.wait(1000)) {}
        try std.testing.expect(trainer.finish());
        for (step.fitness, trainer.fitness[0..pairs]) |expected, found| {
            try std.testing.expectEqual(@as(i8, switch (expected) {
                '+' => 1,
                '-' => -1,
                else => 0,
            }), found);
        }
        if (step.loss_plus) |losses| for (losses, 0..) |loss, p| try std.testing.expectEqual(loss, trainer.losses[2 * p]);
        if (step.loss_minus) |losses| for (losses, 0..) |loss, p| try std.testing.expectEqual(loss, trainer.losses[2 * p + 1]);
        try std.testing.expectEqual(step.weights_changed, trainer.changed.load(.monotonic));
        try expectHash(step.weights_sha256, &model, null);
        try expectHash(step.states_sha256, &model, std.mem.sliceAsBytes(trainer.states));
    }
}

/// One stream from seed 42: embedding, head, then the matrices layer by layer; norms 16, biases 0.
fn initialize(model: *Model) void {
    var state: u32 = 42;
    @memset(model.outer(.ln_out), 16);
    draw(model.outer(.embedding), &state);
    draw(model.outer(.head), &state);
    for (0..model.shape.layers) |l| {
        @memset(model.layer(l, .ln1), 16);
        @memset(model.layer(l, .ln2), 16);
        inline for (.{ .wf, .uf, .wh, .uh, .expand, .project }) |kind| draw(model.layer(l, kind), &state);
    }
    for (0..model.tensors.len) |i| model.sumRows(i);
}

fn draw(weights: []i8, state: *u32) void {
    for (weights) |*weight| weight.* = scalar.noiseValue(scalar.xorshift32(state));
}

/// The hash of `bytes`, or of the model in the order of the reference's struct.
fn expectHash(expected: []const u8, model: *const Model, bytes: ?[]const u8) !void {
    var hash: Sha256 = .init(.{});
    if (bytes) |b| hash.update(b) else {
        const layers = model.shape.layers;
        const put = struct {
            fn put(h: *Sha256, tensor: []const i8) void {
                h.update(std.mem.sliceAsBytes(tensor));
            }
        }.put;
        put(&hash, model.outer(.embedding));
        for (0..layers) |l| inline for (.{ .wf, .uf, .wh, .uh }) |kind| put(&hash, model.layer(l, kind));
        for (0..layers) |l| inline for (.{ .bf, .bh }) |kind| put(&hash, model.layer(l, kind));
        for (0..layers) |l| inline for (.{ .expand, .project }) |kind| put(&hash, model.layer(l, kind));
        put(&hash, model.outer(.head));
        for (0..layers) |l| inline for (.{ .ln1, .ln2 }) |kind| put(&hash, model.layer(l, kind));
        put(&hash, model.outer(.ln_out));
    }
    const digest = hash.finalResult();
    try std.testing.expectEqualStrings(expected, &std.fmt.bytesToHex(digest, .lower));
}
